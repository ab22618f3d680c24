//! Filters by tags: the field `tf` of a subscribe.

use prost::Message;
use prost::bytes::Bytes;

use super::schema;
use crate::message::{FilterError, FilterNode, TagsFilter};

/// Decodes a filter.
pub(super) fn decode(filter: Bytes) -> Result<TagsFilter, FilterError> {
    if filter.len() > TagsFilter::BYTES_MAX {
        return Err(FilterError::TooLong);
    }
    let root = schema::FilterNode::decode(filter).map_err(|_| FilterError::Malformed)?;
    TagsFilter::new(node(root))
}

fn node(node: schema::FilterNode) -> FilterNode<'static> {
    let schema::FilterNode { op, key, cmp, val, vals, nodes } = node;
    FilterNode {
        op: op.into(),
        key: key.into(),
        cmp: cmp.into(),
        val: val.into(),
        vals: vals.into_iter().map(Into::into).collect(),
        nodes: nodes.into_iter().map(self::node).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Tags;

    fn encoded(node: &schema::FilterNode) -> Bytes {
        node.encode_to_vec().into()
    }

    fn compare(val: &str) -> schema::FilterNode {
        let (key, cmp, val) = ("a".to_owned(), "eq".to_owned(), val.to_owned());
        schema::FilterNode { key, cmp, val, ..Default::default() }
    }

    #[test]
    fn a_filter_is_decoded_or_refused() {
        let not = |nodes| schema::FilterNode { op: "not".into(), nodes, ..Default::default() };
        let filter = decode(encoded(&not(vec![compare("1")]))).unwrap();
        let fits = |text| filter.fits(Tags::new([("a", text)]).unwrap().as_deref());
        assert!(fits("2") && !fits("1"));
        let deep = |depth: usize| (1..depth).fold(compare("1"), |inner, _| not(vec![inner]));
        let frame = encoded(&compare("")).len() + 3;
        for (filter, expected) in [
            (Bytes::new(), Some(FilterError::Unknown)),
            (Bytes::from_static(&[0xff]), Some(FilterError::Malformed)),
            (encoded(&deep(TagsFilter::DEPTH_MAX)), None),
            (encoded(&deep(TagsFilter::DEPTH_MAX + 1)), Some(FilterError::TooDeep)),
            (encoded(&deep(1000)), Some(FilterError::Malformed)),
            (encoded(&compare(&"x".repeat(TagsFilter::BYTES_MAX - frame))), None),
            (encoded(&compare(&"x".repeat(TagsFilter::BYTES_MAX))), Some(FilterError::TooLong)),
        ] {
            assert_eq!(decode(filter.clone()).err(), expected, "{} bytes", filter.len());
        }
    }
}
