//! The answers of a backend: `{"result":{…}}`, `{"error":{…}}` or `{"disconnect":{…}}`, as Centrifugo takes them.
//!
//! If there are several, `disconnect` comes before `error`, and `error` before `result`; an empty object is a result
//! with nothing in it. Unknown fields are ignored, and `null` counts as absent.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::config::CallbackKind;
use crate::config::limits::{CALLBACK_ERROR_BYTES_MAX, PAYLOAD_DEPTH_MAX};
use crate::message::{BackendError, CloseReason, Disconnect, Payload, PayloadKind};
use crate::protocol::json::{Object, exceeds_depth, kind_of_bytes};

/// What a backend says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It did what it was asked.
    Result(CallbackResult),
    /// It refuses: the client gets this error.
    Error(BackendError),
    /// The client is to be disconnected.
    Disconnect(Disconnect),
}

/// The result of a callback, by its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of these fields say what they are")]
pub enum CallbackResult {
    /// What a procedure returned.
    Rpc { data: Option<Payload> },
}

/// The answer is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault;

impl Answer {
    /// About how many bytes it keeps on the heap.
    pub fn bytes(&self) -> usize {
        match self {
            Answer::Result(CallbackResult::Rpc { data }) => {
                data.as_ref().map_or(0, Payload::heap_bytes)
            }
            Answer::Error(error) => error.message.len(),
            Answer::Disconnect(disconnect) => disconnect.text.as_ref().map_or(0, |text| text.len()),
        }
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<Object<ErrorBody<'a>>>,
    #[serde(borrow)]
    disconnect: Option<Object<DisconnectBody<'a>>>,
}

#[derive(Deserialize)]
struct ErrorBody<'a> {
    #[serde(default)]
    code: Option<u32>,
    #[serde(borrow)]
    message: Option<Cow<'a, str>>,
    temporary: Option<bool>,
}

#[derive(Deserialize)]
struct DisconnectBody<'a> {
    code: Option<u32>,
    #[serde(borrow)]
    reason: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
struct RpcBody<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    b64data: Option<Cow<'a, str>>,
}

/// Decodes the body of an answer with status 200.
pub fn decode_answer(kind: CallbackKind, body: &[u8]) -> Result<Answer, Fault> {
    let Object(Envelope { result, error, disconnect }) =
        serde_json::from_slice(body).map_err(|_| Fault)?;
    if let Some(Object(body)) = disconnect {
        return Ok(Answer::Disconnect(body.disconnect()));
    }
    if let Some(Object(ErrorBody { code, message, temporary })) = error {
        let message = message.unwrap_or_default();
        if message.len() > CALLBACK_ERROR_BYTES_MAX {
            return Err(Fault);
        }
        return Ok(Answer::Error(BackendError {
            code: code.unwrap_or(0),
            message: Arc::from(message),
            is_temporary: temporary == Some(true),
        }));
    }
    let result = match kind {
        CallbackKind::Rpc => {
            let RpcBody { data, b64data } = decode(result)?;
            CallbackResult::Rpc { data: payload(data, b64data)? }
        }
    };
    Ok(Answer::Result(result))
}

fn decode<'a, T: Default + Deserialize<'a>>(result: Option<&'a RawValue>) -> Result<T, Fault> {
    let Some(result) = result else { return Ok(T::default()) };
    let decoded = serde_json::from_str(result.get());
    decoded.map(|Object(body)| body).map_err(|_| Fault)
}

/// The data of a result. With both, Centrifugo takes `b64data`.
fn payload(
    data: Option<&RawValue>,
    b64data: Option<Cow<'_, str>>,
) -> Result<Option<Payload>, Fault> {
    if let Some(text) = b64data.filter(|text| !text.is_empty()) {
        let bytes = STANDARD.decode(text.as_bytes()).map_err(|_| Fault)?;
        return Ok(Some(Payload::new(kind_of_bytes(&bytes, PAYLOAD_DEPTH_MAX), bytes)));
    }
    let Some(data) = data else { return Ok(None) };
    if exceeds_depth(data.get().as_bytes(), PAYLOAD_DEPTH_MAX) {
        return Err(Fault);
    }
    let bytes = Bytes::copy_from_slice(data.get().as_bytes());
    Ok(Some(Payload::new(PayloadKind::Json, bytes)))
}

impl DisconnectBody<'_> {
    /// A code that a close frame cannot carry, and a reason that does not fit it, are replaced by those of a forced
    /// disconnect: the client is to go in any case.
    fn disconnect(self) -> Disconnect {
        let reason = CloseReason::Backend;
        let code = self.code.and_then(|code| u16::try_from(code).ok());
        let text = self.reason.filter(|text| !text.is_empty() && Disconnect::is_text(text));
        Disconnect {
            reason,
            code: code.filter(|code| (3000..=4999).contains(code)),
            text: text.map(Arc::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> Result<Answer, Fault> {
        decode_answer(CallbackKind::Rpc, text.as_bytes())
    }

    fn rpc(data: &str) -> Result<Answer, Fault> {
        let data = Some(Payload::new(PayloadKind::Json, data.to_owned()));
        Ok(Answer::Result(CallbackResult::Rpc { data }))
    }

    const NOTHING: Result<Answer, Fault> = Ok(Answer::Result(CallbackResult::Rpc { data: None }));

    #[test]
    fn a_result_has_the_data_as_it_is() {
        assert_eq!(decode(r#"{"result":{"data":{"a": [1]}}}"#), rpc(r#"{"a": [1]}"#));
        assert_eq!(decode(r#"{"x":1,"result":{"y":2,"data":"text"}}"#), rpc(r#""text""#));
        assert_eq!(decode(r#"{"result":{"b64data":"WzFd"}}"#), rpc("[1]"));
        let binary = Some(Payload::new(PayloadKind::Binary, vec![255]));
        assert_eq!(
            decode(r#"{"result":{"b64data":"/w==","data":1}}"#),
            Ok(Answer::Result(CallbackResult::Rpc { data: binary }))
        );
        for empty in ["{}", r#"{"result":null}"#, r#"{"result":{}}"#, r#"{"result":{"data":null}}"#]
        {
            assert_eq!(decode(empty), NOTHING, "{empty}");
        }
    }

    #[test]
    fn a_disconnect_comes_before_an_error_and_an_error_before_a_result() {
        let [disconnect, error] =
            [r#""disconnect":{"code":4000,"reason":"x"}"#, r#""error":{"code":50,"message":"m"}"#];
        let code = |text: &str| match decode(text).unwrap() {
            Answer::Disconnect(disconnect) => u32::from(disconnect.disconnect_code()),
            Answer::Error(error) => error.code,
            Answer::Result(_) => 0,
        };
        assert_eq!(code(&format!(r#"{{"result":{{}},{error},{disconnect}}}"#)), 4000);
        assert_eq!(code(&format!(r#"{{"result":{{}},{error},"disconnect":null}}"#)), 50);
        assert_eq!(code(r#"{"error":null,"result":{}}"#), 0);
        let temporary = decode(r#"{"error":{"code":1000,"message":"m","temporary":true}}"#);
        let expected = BackendError { code: 1000, message: "m".into(), is_temporary: true };
        assert_eq!(temporary, Ok(Answer::Error(expected)));
    }

    #[test]
    fn a_disconnect_has_a_code_and_a_reason_that_a_close_frame_can_carry() {
        let of = |code: &str, reason: &str| {
            let text = format!(r#"{{"disconnect":{{"code":{code},"reason":"{reason}"}}}}"#);
            match decode(&text) {
                Ok(Answer::Disconnect(one)) => (one.disconnect_code(), one.text().to_owned()),
                other => panic!("{other:?}"),
            }
        };
        for code in [3000, 4000, 4999] {
            assert_eq!(of(&code.to_string(), "out"), (code, "out".to_owned()));
        }
        let own = CloseReason::Backend;
        for code in ["0", "100", "2999", "5000", "65536", "4294967295"] {
            assert_eq!(of(code, "out").0, own.disconnect_code(), "{code}");
        }
        assert_eq!(of("4000", &"x".repeat(123)).1, "x".repeat(123));
        for reason in [&*"x".repeat(124), "a\\nb", ""] {
            assert_eq!(of("4000", reason).1, own.label(), "{reason}");
        }
    }

    #[test]
    fn what_is_not_an_answer_is_a_fault() {
        let deep = |depth: usize| {
            format!(r#"{{"result":{{"data":{}{}}}}}"#, "[".repeat(depth), "]".repeat(depth))
        };
        assert!(decode(&deep(PAYLOAD_DEPTH_MAX)).is_ok());
        let message = |bytes: usize| {
            format!(r#"{{"error":{{"code":1000,"message":"{}"}}}}"#, "x".repeat(bytes))
        };
        assert!(decode(&message(CALLBACK_ERROR_BYTES_MAX)).is_ok());
        for text in [
            "",
            "not json",
            "[]",
            "null",
            "1",
            r#"{"result":[]}"#,
            r#"{"result":1}"#,
            r#"{"result":{}} x"#,
            r#"{"result":{"b64data":"?"}}"#,
            r#"{"result":{"b64data":1}}"#,
            r#"{"result":{},"result":{}}"#,
            r#"{"error":"no"}"#,
            r#"{"error":{"code":-1}}"#,
            r#"{"error":{"code":"1"}}"#,
            r#"{"error":{"code":1.5}}"#,
            r#"{"error":{"code":4294967296}}"#,
            r#"{"disconnect":[4000,"x"]}"#,
            r#"{"disconnect":{"code":null,"reason":7}}"#,
            &deep(PAYLOAD_DEPTH_MAX + 1),
            &deep(100_000),
            &message(CALLBACK_ERROR_BYTES_MAX + 1),
        ] {
            assert_eq!(decode(text), Err(Fault), "{}", &text[..text.len().min(100)]);
        }
        assert_eq!(
            decode_answer(CallbackKind::Rpc, b"{\"result\":{\"data\":\"\xff\"}}"),
            Err(Fault)
        );
    }
}
