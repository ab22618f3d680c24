//! What tokens and backends say about subscriptions, as Centrifugo reads it.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Object, exceeds_depth, kind_of_bytes, write_line};
use crate::message::{INFO_BYTES_MAX, Overrides, PayloadKind, SubscriptionOptions};

/// A value is not valid: it nests too deep, is too long, or is not in base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidValue;

/// What is said about one subscription.
#[derive(Default, serde::Deserialize)]
pub struct SubscriptionDocument<'a> {
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    b64info: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    b64data: Option<String>,
    #[serde(rename = "override")]
    overrides: Option<Object<OverrideDocument>>,
}

/// Channel options that are replaced for one subscription.
#[derive(Debug, Default, serde::Deserialize)]
pub struct OverrideDocument {
    presence: Option<Object<Switch>>,
    join_leave: Option<Object<Switch>>,
    force_push_join_leave: Option<Object<Switch>>,
    force_positioning: Option<Object<Switch>>,
    force_recovery: Option<Object<Switch>>,
}

#[derive(Debug, serde::Deserialize)]
struct Switch {
    #[serde(default)]
    value: bool,
}

impl OverrideDocument {
    /// The options that are replaced.
    pub fn overrides(self) -> Overrides {
        let value = |switch: Option<Object<Switch>>| switch.map(|Object(switch)| switch.value);
        Overrides {
            presence: value(self.presence),
            join_leave: value(self.join_leave),
            force_push_join_leave: value(self.force_push_join_leave),
            force_positioning: value(self.force_positioning),
            force_recovery: value(self.force_recovery),
        }
    }
}

impl SubscriptionDocument<'_> {
    /// The options of the subscription, which expires at this time. Values nest at most `depth_max` deep.
    pub fn options(
        self,
        expires_at: Option<u64>,
        depth_max: usize,
    ) -> Result<SubscriptionOptions, InvalidValue> {
        let info = line_of_value(self.info, self.b64info.as_deref(), depth_max)?;
        if info.as_ref().is_some_and(|info| info.len() > INFO_BYTES_MAX) {
            return Err(InvalidValue);
        }
        let Object(overrides) = self.overrides.unwrap_or(Object(OverrideDocument::default()));
        Ok(SubscriptionOptions {
            info,
            data: line_of_value(self.data, self.b64data.as_deref(), depth_max)?,
            expires_at,
            is_renewed_by_backend: false,
            overrides: overrides.overrides(),
        })
    }
}

/// Subscriptions: an object whose members are channels, each once.
pub struct SubscriptionDocuments<'a>(
    /// Each channel, with what is said about the subscription to it.
    pub Vec<(String, SubscriptionDocument<'a>)>,
);

impl<'de: 'a, 'a> Deserialize<'de> for SubscriptionDocuments<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<'a>(PhantomData<&'a ()>);

        impl<'de: 'a, 'a> Visitor<'de> for Members<'a> {
            type Value = SubscriptionDocuments<'a>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut all, mut seen) = (Vec::new(), HashSet::new());
                while let Some((channel, options)) = map.next_entry::<String, Option<_>>()? {
                    if !seen.insert(channel.clone()) {
                        return Err(de::Error::custom("a channel is there twice"));
                    }
                    let options = options.map(|Object(options)| options);
                    all.push((channel, options.unwrap_or_default()));
                }
                Ok(SubscriptionDocuments(all))
            }
        }

        deserializer.deserialize_map(Members(PhantomData))
    }
}

/// A JSON value on one line: of a member that is JSON, or of one in base64, which goes first. Bytes that are not JSON
/// become a JSON string of their base64, because clients get these values inside of JSON. It nests at most `depth_max`
/// deep.
pub fn line_of_value(
    json: Option<&RawValue>,
    base64: Option<&str>,
    depth_max: usize,
) -> Result<Option<Bytes>, InvalidValue> {
    if let Some(base64) = base64.filter(|base64| !base64.is_empty()) {
        let bytes = BASE64_STANDARD.decode(base64).map_err(|_| InvalidValue)?;
        if kind_of_bytes(&bytes, depth_max) == PayloadKind::Json {
            return Ok(Some(one_line(&bytes)));
        }
        return Ok(Some(format!("\"{base64}\"").into()));
    }
    let Some(json) = json else { return Ok(None) };
    if exceeds_depth(json.get().as_bytes(), depth_max) {
        return Err(InvalidValue);
    }
    Ok(Some(one_line(json.get().as_bytes())))
}

fn one_line(json: &[u8]) -> Bytes {
    let mut line = Vec::with_capacity(json.len());
    write_line(&mut line, json);
    line.into()
}
