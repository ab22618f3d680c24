//! Filters by tags: the member `tf` of a subscribe.

use std::borrow::Cow;

use serde::Deserialize;

use super::{Object, Text};
use crate::message::{FilterError, FilterNode, TagsFilter};

/// `FilterNode` in `client.proto`. An absent member and null are the same.
#[derive(Deserialize)]
struct NodeDocument<'a> {
    #[serde(borrow)]
    op: Option<Text<'a>>,
    #[serde(borrow)]
    key: Option<Text<'a>>,
    #[serde(borrow)]
    cmp: Option<Text<'a>>,
    #[serde(borrow)]
    val: Option<Text<'a>>,
    #[serde(borrow)]
    vals: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    nodes: Option<Vec<Object<NodeDocument<'a>>>>,
}

/// Decodes a filter.
pub(super) fn decode(filter: &str) -> Result<TagsFilter, FilterError> {
    if filter.len() > TagsFilter::BYTES_MAX {
        return Err(FilterError::TooLong);
    }
    let Object(root) = serde_json::from_str::<Object<NodeDocument<'_>>>(filter)
        .map_err(|_| FilterError::Malformed)?;
    TagsFilter::new(root.node())
}

impl<'a> NodeDocument<'a> {
    fn node(self) -> FilterNode<'a> {
        let text = |text: Option<Text<'a>>| text.map_or(Cow::Borrowed(""), |Text(text)| text);
        let nodes = self.nodes.unwrap_or_default();
        FilterNode {
            op: text(self.op),
            key: text(self.key),
            cmp: text(self.cmp),
            val: text(self.val),
            vals: self.vals.unwrap_or_default().into_iter().map(|Text(text)| text).collect(),
            nodes: nodes.into_iter().map(|Object(node)| node.node()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Tags;

    #[test]
    fn a_filter_is_decoded() {
        let filter = decode(
            r#"{"op":"and","key":null,"x":[],"nodes":[{"key":"a","cmp":"in","vals":["1","\u0032"]},
            {"op":"not","nodes":[{"key":"b","cmp":"ex"}]}]}"#,
        )
        .unwrap();
        let fits = |tags: &[(&str, &str)]| {
            filter.fits(Tags::new(tags.iter().copied()).unwrap().as_deref())
        };
        assert!(fits(&[("a", "2")]));
        assert!(!fits(&[("a", "3")]) && !fits(&[("a", "1"), ("b", "")]));
    }

    #[test]
    fn what_is_not_a_filter_is_refused() {
        for text in [
            "7",
            "[]",
            "\"a\"",
            "true",
            r#"["and","a","eq","1",[],[]]"#,
            r#"{"key":1,"cmp":"eq","val":"1"}"#,
            r#"{"key":"a","cmp":"in","vals":"1"}"#,
            r#"{"op":"not","nodes":{"key":"a","cmp":"ex"}}"#,
            r#"{"op":"not","nodes":[["","a","ex"]]}"#,
        ] {
            assert_eq!(decode(text), Err(FilterError::Malformed), "{text}");
        }
        assert_eq!(decode("{}"), Err(FilterError::Unknown));
        let deep = |depth| {
            let inner = r#"{"key":"a","cmp":"ex"}"#;
            format!("{}{inner}{}", r#"{"op":"not","nodes":["#.repeat(depth), "]}".repeat(depth))
        };
        assert_eq!(decode(&deep(20)), Err(FilterError::TooDeep));
        assert_eq!(decode(&deep(100)), Err(FilterError::Malformed));
    }

    #[test]
    fn the_text_of_a_filter_has_a_limit() {
        let of = |bytes: usize| {
            let text = format!(r#"{{"key":"a","cmp":"eq","val":"{}"}}"#, "x".repeat(bytes));
            (text.len(), decode(&text))
        };
        let frame = of(0).0;
        assert!(matches!(of(TagsFilter::BYTES_MAX - frame), (TagsFilter::BYTES_MAX, Ok(_))));
        assert_eq!(of(TagsFilter::BYTES_MAX - frame + 1).1, Err(FilterError::TooLong));
    }
}
