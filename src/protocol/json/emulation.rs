//! Requests that carry the commands of a client whose replies come as an HTTP answer that goes on: SDKs call that
//! emulation.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Object, Text};
use crate::protocol::command::{Emulation, InvalidEmulation};

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    session: Option<Text<'a>>,
    #[serde(borrow)]
    node: Option<Text<'a>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// Decodes a request, which is an object.
pub fn decode_emulation(bytes: &[u8]) -> Result<Emulation<'_>, InvalidEmulation> {
    let Object(Body { session, node, data }) =
        serde_json::from_slice(bytes).map_err(|_| InvalidEmulation)?;
    let text =
        |text: Option<Text<'_>>| text.map_or_else(String::new, |Text(text)| text.into_owned());
    let commands = data.and_then(|data| serde_json::from_str(data.get()).ok());
    Ok(Emulation {
        session: text(session).into(),
        node: text(node).into(),
        commands: commands.map(|Text(text)| bytes_of(text)),
    })
}

fn bytes_of(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_a_string() {
        let text = r#"{"session":"s","node":"n\u0031","data":"{\"id\":1}\n{}","x":[]}"#;
        let commands = Some(Cow::Borrowed(&b"{\"id\":1}\n{}"[..]));
        let expected = Emulation { session: "s".into(), node: "n1".into(), commands };
        assert_eq!(decode_emulation(text.as_bytes()), Ok(expected));
        for data in ["", r#""data":null"#, r#""data":{"id":1}"#, r#""data":[1]"#, r#""data":7"#] {
            let nothing = Emulation { session: "".into(), node: "".into(), commands: None };
            let text = format!("{{{data}}}");
            assert_eq!(decode_emulation(text.as_bytes()), Ok(nothing), "{data}");
        }
    }

    #[test]
    fn a_request_is_an_object() {
        for text in [
            "",
            "{",
            "[]",
            "null",
            "7",
            r#"["s","n","d"]"#,
            r#"{"session":7}"#,
            r#"{"node":{}}"#,
            "{}{}",
        ] {
            assert_eq!(decode_emulation(text.as_bytes()), Err(InvalidEmulation), "{text}");
        }
        assert_eq!(decode_emulation(b"{\"data\":\"\xff\"}"), Err(InvalidEmulation));
    }
}
