//! Calls to `/api`: the server API as Centrifugo had it before version 5.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ApiMethod, Object};

/// A command of a call to `/api`, as Centrifugo had it before version 5 and still takes it: several may follow one
/// another.
#[derive(Debug, Deserialize)]
pub struct OldCommand<'a> {
    /// The id that the reply repeats; absent or 0 for none.
    pub id: Option<u32>,
    /// The name of the method in any case, or its number; absent for `publish`.
    #[serde(borrow)]
    pub method: Option<OldMethod<'a>>,
    /// The parameters of the method; absent for none.
    #[serde(borrow)]
    pub params: Option<&'a RawValue>,
}

/// How a command of a call to `/api` names its method.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum OldMethod<'a> {
    /// Its name, in any case.
    Name(#[serde(borrow)] Cow<'a, str>),
    /// Its number in Centrifugo's schema.
    Number(u32),
}

impl OldMethod<'_> {
    /// The method, if there is one.
    pub fn method(&self) -> Option<ApiMethod> {
        match self {
            OldMethod::Name(name) => ApiMethod::from_name(&name.to_ascii_lowercase()),
            OldMethod::Number(number) => {
                let named = OLD_METHODS.iter().find(|(other, _)| other == number);
                named.map(|(_, method)| *method)
            }
        }
    }
}

/// The numbers of methods (centrifugo 6.9, internal/api/handler_legacy.go).
const OLD_METHODS: [(u32, ApiMethod); 16] = [
    (0, ApiMethod::Publish),
    (1, ApiMethod::Broadcast),
    (2, ApiMethod::Unsubscribe),
    (3, ApiMethod::Disconnect),
    (4, ApiMethod::Presence),
    (5, ApiMethod::PresenceStats),
    (6, ApiMethod::History),
    (7, ApiMethod::HistoryRemove),
    (8, ApiMethod::Channels),
    (9, ApiMethod::Info),
    (10, ApiMethod::Rpc),
    (11, ApiMethod::Subscribe),
    (12, ApiMethod::Refresh),
    (14, ApiMethod::Connections),
    (18, ApiMethod::BlockUser),
    (19, ApiMethod::UnblockUser),
];

/// Decodes the commands of a call to `/api`. An error is that the body is not JSON, or not made of commands.
pub fn decode_old(text: &str) -> impl Iterator<Item = Result<OldCommand<'_>, String>> {
    let commands = serde_json::Deserializer::from_str(text).into_iter::<Object<OldCommand<'_>>>();
    commands
        .map(|command| command.map(|Object(command)| command).map_err(|error| error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_named_in_any_case_or_by_its_number() {
        let methods = |text: &str| -> Result<Vec<_>, String> {
            let method = |command: OldCommand<'_>| command.method.map(|method| method.method());
            decode_old(text).map(|command| command.map(method)).collect()
        };
        for (text, expected) in [
            (r#"{"method":"publish"}"#, Some(Some(ApiMethod::Publish))),
            (r#"{"method":"PRESENCE_stats"}"#, Some(Some(ApiMethod::PresenceStats))),
            (r#"{"method":"\u0069nfo"}"#, Some(Some(ApiMethod::Info))),
            (r#"{"method":9}"#, Some(Some(ApiMethod::Info))),
            (r#"{"method":13}"#, Some(None)),
            (r#"{"method":"dance"}"#, Some(None)),
            (r#"{"method":""}"#, Some(None)),
            (r#"{"method":null,"params":{}}"#, None),
            ("{}", None),
        ] {
            assert_eq!(methods(text), Ok(vec![expected]), "{text}");
        }
        let several = "{\"method\":9}\n{\"id\":2,\"x\":[1],\"method\":\"info\"} {}";
        assert_eq!(methods(several).map(|methods| methods.len()), Ok(3));
        assert_eq!(methods(""), Ok(Vec::new()));
        for text in ["{", "[]", "7", "{}x", r#"{"method":-1}"#, r#"{"id":-1}"#, r#"{"method":[]}"#]
        {
            assert!(methods(text).is_err(), "{text}");
        }
    }
}
