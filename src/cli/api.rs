//! Calls of the server API.

use std::time::Duration;

use fantail::config::ApiRight;
use serde_json::Value;

use super::access::{Backend, Place};
use super::client::{Request, error_of};

/// Calls a method, whose right has the same name, and returns its result.
pub fn call(
    place: Place,
    backend: &Backend,
    right: ApiRight,
    parameters: &Value,
) -> Result<Value, String> {
    let target = place.load()?;
    let (server, key) = (target.admin()?, target.api_key(backend, right));
    let (method, body) = (right.word(), parameters.to_string());
    let headers: Vec<_> = key.iter().map(|key| ("X-API-Key", key.expose())).collect();
    let request = Request {
        method: "POST",
        target: &format!("/api/{method}"),
        headers: &headers,
        body: body.as_bytes(),
    };
    let answer =
        request.exchange(&server, RESPONSE_TIMEOUT).map_err(|trouble| trouble.into_message())?;
    if answer.status == 404 {
        return Err(format!(
            "{server} has no server API: use the address that admin.listen sets, if this is a server of fantail"
        ));
    }
    if answer.status != 200 {
        return Err(error_of(&server, answer.status, &answer.body).into_message());
    }
    let mut answer: Value = serde_json::from_slice(&answer.body)
        .map_err(|_| format!("{server} does not respond as a fantail server does"))?;
    if let Some(error) = answer.get("error") {
        let message = error["message"].as_str().unwrap_or("an error");
        return Err(format!("{server} refused {method}: {message} ({})", error["code"]));
    }
    Ok(answer["result"].take())
}

/// A name for a terminal: without the characters that control it.
pub fn shown(name: &str) -> String {
    name.chars().fold(String::with_capacity(name.len()), |mut shown, character| {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
        shown
    })
}

/// How long to wait for the server's response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_does_not_control_the_terminal() {
        assert_eq!(shown("é \"a\" \\"), "é \"a\" \\");
        assert_eq!(shown("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
    }
}
