//! Filters of publications by their tags.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use super::{Publication, Tags};

/// A filter that a subscriber sets: it receives the publications whose tags fit. Equal filters are equal values, which
/// the subscribers of a worker share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TagsFilter {
    root: Node,
    /// The number of nodes, these with a text or several.
    nodes: u32,
}

/// A node of a filter as clients send it: `FilterNode` in `client.proto` of github.com/centrifugal/protocol.
#[derive(Debug, Default)]
pub struct FilterNode<'a> {
    /// `and`, `or`, `not`, or empty for a comparison.
    pub op: Cow<'a, str>,
    /// The name of the tag.
    pub key: Cow<'a, str>,
    /// How it is compared.
    pub cmp: Cow<'a, str>,
    /// What it is compared with.
    pub val: Cow<'a, str>,
    /// The same for `in` and `nin`.
    pub vals: Vec<Cow<'a, str>>,
    /// The nodes that `op` connects.
    pub nodes: Vec<FilterNode<'a>>,
}

/// Why a filter is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterError {
    /// It is not a filter.
    Malformed,
    /// Its text is longer than [`TagsFilter::BYTES_MAX`].
    TooLong,
    /// It has more than [`TagsFilter::NODES_MAX`] nodes.
    TooManyNodes,
    /// It nests deeper than [`TagsFilter::DEPTH_MAX`].
    TooDeep,
    /// An operation or a comparison is unknown.
    Unknown,
    /// A node has members that do not fit its operation, or lacks some.
    Unfit,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Node {
    All(Box<[Node]>),
    Any(Box<[Node]>),
    Not(Box<Node>),
    Compare(Box<str>, Comparison),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Comparison {
    Equal(Box<str>),
    NotEqual(Box<str>),
    /// One of these, in order.
    In(Box<[Box<str>]>),
    NotIn(Box<[Box<str>]>),
    Exists,
    Missing,
    StartsWith(Box<str>),
    EndsWith(Box<str>),
    Contains(Box<str>),
    /// A number that is compared in this way.
    Number(Order, Box<str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Order {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl TagsFilter {
    /// Length of a filter as it is sent.
    pub const BYTES_MAX: usize = 8 * 1024;

    /// Nodes of a filter: each is evaluated for each publication. The texts of `in` and `nin` are looked up.
    pub const NODES_MAX: usize = 64;

    /// Depth of its nodes.
    pub const DEPTH_MAX: usize = 8;

    /// The filter that a client sends.
    pub fn new(root: FilterNode<'_>) -> Result<Self, FilterError> {
        let mut nodes = 0;
        let root = Node::new(root, Self::DEPTH_MAX, &mut nodes)?;
        Ok(Self { root, nodes: nodes as u32 })
    }

    /// Whether a publication with these tags fits.
    pub fn fits(&self, tags: Option<&Tags>) -> bool {
        self.root.fits(tags)
    }

    /// Whether a publication fits.
    pub fn selects(&self, publication: &Publication) -> bool {
        self.fits(publication.payload.tags.as_deref())
    }

    /// About how long it takes to evaluate it for a publication; a comparison of a short text counts 1.
    pub fn work(&self, publication: &Publication) -> usize {
        let tags = publication.payload.tags.as_ref().map_or(0, |tags| tags.heap_bytes());
        self.nodes as usize * (1 + tags / WORK_BYTES)
    }

    /// Bytes that it takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.root.heap_bytes()
    }
}

impl Node {
    fn new(node: FilterNode<'_>, depth: usize, nodes: &mut usize) -> Result<Self, FilterError> {
        *nodes += 1;
        if depth == 0 {
            return Err(FilterError::TooDeep);
        }
        if *nodes > TagsFilter::NODES_MAX {
            return Err(FilterError::TooManyNodes);
        }
        if node.op.is_empty() {
            return Comparison::new(&node).map(|how| Node::Compare(node.key.into(), how));
        }
        let connects = matches!(&*node.op, "and" | "or" | "not");
        let of = node.nodes.into_iter().map(|inner| Node::new(inner, depth - 1, nodes));
        let mut of = of.collect::<Result<Vec<_>, _>>()?;
        match &*node.op {
            _ if !connects => Err(FilterError::Unknown),
            _ if of.is_empty() => Err(FilterError::Unfit),
            "and" => Ok(Node::All(of.into())),
            "or" => Ok(Node::Any(of.into())),
            _ if of.len() > 1 => Err(FilterError::Unfit),
            _ => Ok(Node::Not(Box::new(of.remove(0)))),
        }
    }

    fn fits(&self, tags: Option<&Tags>) -> bool {
        match self {
            Node::All(nodes) => nodes.iter().all(|node| node.fits(tags)),
            Node::Any(nodes) => nodes.iter().any(|node| node.fits(tags)),
            Node::Not(node) => !node.fits(tags),
            Node::Compare(name, how) => {
                let mut tags = tags.into_iter().flat_map(Tags::iter);
                how.fits(tags.find(|(other, _)| *other == &**name).map(|(_, text)| text))
            }
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Node::All(nodes) | Node::Any(nodes) => {
                nodes.iter().map(|node| size_of::<Node>() + node.heap_bytes()).sum()
            }
            Node::Not(node) => size_of::<Node>() + node.heap_bytes(),
            Node::Compare(name, how) => name.len() + how.heap_bytes(),
        }
    }
}

impl Comparison {
    fn new(node: &FilterNode<'_>) -> Result<Self, FilterError> {
        let FilterNode { key, cmp, val, vals, .. } = node;
        let text = || Box::from(&**val);
        let texts = || {
            let mut texts: Vec<Box<str>> = vals.iter().map(|text| Box::from(&**text)).collect();
            texts.sort_unstable();
            texts.dedup();
            texts.into()
        };
        let number = |order| Self::Number(order, text());
        let comparison = match &**cmp {
            "eq" => Self::Equal(text()),
            "neq" => Self::NotEqual(text()),
            "in" => Self::In(texts()),
            "nin" => Self::NotIn(texts()),
            "ex" => Self::Exists,
            "nex" => Self::Missing,
            "sw" => Self::StartsWith(text()),
            "ew" => Self::EndsWith(text()),
            "ct" => Self::Contains(text()),
            "gt" => number(Order::Greater),
            "gte" => number(Order::GreaterOrEqual),
            "lt" => number(Order::Less),
            "lte" => number(Order::LessOrEqual),
            _ => return Err(FilterError::Unknown),
        };
        // As Centrifugo demands it.
        let (has_key, has_text, has_texts) = (!key.is_empty(), !val.is_empty(), !vals.is_empty());
        let is_fit = match comparison {
            Self::Exists | Self::Missing => !has_text && !has_texts,
            Self::In(_) | Self::NotIn(_) => has_key && !has_text && has_texts,
            _ => has_key && has_text && !has_texts,
        };
        is_fit.then_some(comparison).ok_or(FilterError::Unfit)
    }

    /// Whether a tag fits, if there is one. As with Centrifugo, a missing tag is empty for `in` and `nin`.
    fn fits(&self, tag: Option<&str>) -> bool {
        let is_among = |texts: &[Box<str>]| {
            let tag = tag.unwrap_or_default();
            texts.binary_search_by(|text| (**text).cmp(tag)).is_ok()
        };
        match self {
            Self::Equal(text) => tag == Some(text),
            Self::NotEqual(text) => tag != Some(text),
            Self::In(texts) => is_among(texts),
            Self::NotIn(texts) => !is_among(texts),
            Self::Exists => tag.is_some(),
            Self::Missing => tag.is_none(),
            Self::StartsWith(text) => tag.is_some_and(|tag| tag.starts_with(&**text)),
            Self::EndsWith(text) => tag.is_some_and(|tag| tag.ends_with(&**text)),
            Self::Contains(text) => tag.is_some_and(|tag| tag.contains(&**text)),
            Self::Number(order, text) => {
                let compared = tag.and_then(|tag| compare_numbers(tag, text));
                compared.is_some_and(|compared| match order {
                    Order::Greater => compared.is_gt(),
                    Order::GreaterOrEqual => compared.is_ge(),
                    Order::Less => compared.is_lt(),
                    Order::LessOrEqual => compared.is_le(),
                })
            }
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Exists | Self::Missing => 0,
            Self::In(texts) | Self::NotIn(texts) => {
                texts.iter().map(|text| size_of::<Box<str>>() + text.len()).sum()
            }
            Self::Equal(text)
            | Self::NotEqual(text)
            | Self::StartsWith(text)
            | Self::EndsWith(text)
            | Self::Contains(text)
            | Self::Number(_, text) => text.len(),
        }
    }
}

/// Bytes of tags that count as much as a comparison.
const WORK_BYTES: usize = 32;

/// Compares two decimal numbers of any length; `None` if one of them is not a number.
fn compare_numbers(a: &str, b: &str) -> Option<Ordering> {
    let ((a_is_negative, a_whole, a_part), (b_is_negative, b_whole, b_part)) =
        (digits(a)?, digits(b)?);
    let sizes = a_whole.len().cmp(&b_whole.len());
    let sizes = sizes.then_with(|| a_whole.cmp(b_whole)).then_with(|| a_part.cmp(b_part));
    Some(match (a_is_negative, b_is_negative) {
        (false, false) => sizes,
        (true, true) => sizes.reverse(),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
    })
}

/// Whether a decimal number is below zero, and its digits in front of the point and behind it, without the zeros that
/// mean nothing.
fn digits(number: &str) -> Option<(bool, &str, &str)> {
    let unsigned = number.strip_prefix(['-', '+']).unwrap_or(number);
    let (whole, part) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    let is_number =
        |digits: &str| !digits.is_empty() && digits.bytes().all(|digit: u8| digit.is_ascii_digit());
    if !is_number(whole) || !is_number(part) {
        return None;
    }
    let (whole, part) = (whole.trim_start_matches('0'), part.trim_end_matches('0'));
    let is_zero = whole.is_empty() && part.is_empty();
    Some((number.starts_with('-') && !is_zero, whole, part))
}

impl FilterError {
    /// The reason in words.
    pub fn text(self) -> &'static str {
        match self {
            FilterError::Malformed => "tf: it is not a filter",
            FilterError::TooLong => "tf: a filter has at most 8192 bytes",
            FilterError::TooManyNodes => "tf: a filter has at most 64 nodes",
            FilterError::TooDeep => "tf: a filter nests at most 8 deep",
            FilterError::Unknown => "tf: an operation or comparison is unknown",
            FilterError::Unfit => "tf: the members of a node do not fit its operation",
        }
    }
}

impl fmt::Display for FilterError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare<'a>(key: &'a str, cmp: &'a str, val: &'a str, vals: &[&'a str]) -> FilterNode<'a> {
        let vals = vals.iter().map(|text| Cow::Borrowed(*text)).collect();
        let (op, nodes) = ("".into(), Vec::new());
        FilterNode { op, key: key.into(), cmp: cmp.into(), val: val.into(), vals, nodes }
    }

    fn connect<'a>(op: &'a str, nodes: Vec<FilterNode<'a>>) -> FilterNode<'a> {
        FilterNode { op: op.into(), nodes, ..FilterNode::default() }
    }

    fn error(root: FilterNode<'_>) -> Option<FilterError> {
        TagsFilter::new(root).err()
    }

    /// The table of Centrifugo's documentation (publication_filtering), and what centrifuge 0.38 does at its edges
    /// (internal/filter/filter.go).
    #[test]
    fn comparisons_are_those_of_centrifugo() {
        let tags = Tags::new([
            ("ticker", "AAPL"),
            ("source", "NASDAQ"),
            ("price", "150.25"),
            ("volume", "1000"),
            ("empty", ""),
        ])
        .unwrap();
        for (key, cmp, val, vals, expected) in [
            ("ticker", "eq", "AAPL", &[][..], true),
            ("ticker", "eq", "aapl", &[], false),
            ("none", "eq", "AAPL", &[], false),
            ("source", "neq", "TEST", &[], true),
            ("source", "neq", "NASDAQ", &[], false),
            ("none", "neq", "NASDAQ", &[], true),
            ("ticker", "in", "", &["MSFT", "AAPL"], true),
            ("ticker", "in", "", &["MSFT", "GOOGL", "MSFT"], false),
            ("none", "in", "", &["MSFT"], false),
            ("none", "in", "", &[""], true),
            ("ticker", "nin", "", &["MSFT", "GOOGL"], true),
            ("ticker", "nin", "", &["AAPL"], false),
            ("none", "nin", "", &["AAPL"], true),
            ("price", "ex", "", &[], true),
            ("empty", "ex", "", &[], true),
            ("none", "ex", "", &[], false),
            ("", "ex", "", &[], false),
            ("none", "nex", "", &[], true),
            ("price", "nex", "", &[], false),
            ("ticker", "sw", "AA", &[], true),
            ("ticker", "sw", "PL", &[], false),
            ("none", "sw", "AA", &[], false),
            ("source", "ew", "DAQ", &[], true),
            ("source", "ew", "NAS", &[], false),
            ("source", "ct", "SDA", &[], true),
            ("source", "ct", "SAD", &[], false),
            ("price", "gt", "100", &[], true),
            ("price", "gt", "150.25", &[], false),
            ("price", "gte", "150.250", &[], true),
            ("price", "lt", "200", &[], true),
            ("volume", "lte", "1000", &[], true),
            ("volume", "lt", "-1000.5", &[], false),
            ("volume", "lt", "many", &[], false),
            ("ticker", "gt", "0", &[], false),
            ("empty", "lt", "1", &[], false),
            ("none", "lt", "1", &[], false),
        ] {
            let filter = TagsFilter::new(compare(key, cmp, val, vals)).unwrap();
            assert_eq!(filter.fits(tags.as_deref()), expected, "{key} {cmp} {val} {vals:?}");
        }
        let untagged = TagsFilter::new(compare("a", "nex", "", &[])).unwrap();
        assert!(untagged.fits(None));
    }

    #[test]
    fn nodes_are_connected() {
        let tags = Tags::new([("a", "1"), ("b", "2")]).unwrap();
        let fits = |root| TagsFilter::new(root).unwrap().fits(tags.as_deref());
        let is = |key, val| compare(key, "eq", val, &[]);
        assert!(fits(connect("and", vec![is("a", "1"), is("b", "2")])));
        assert!(!fits(connect("and", vec![is("a", "1"), is("b", "3")])));
        assert!(fits(connect("or", vec![is("a", "3"), is("b", "2")])));
        assert!(!fits(connect("or", vec![is("a", "3"), is("b", "3")])));
        assert!(fits(connect("not", vec![is("a", "3")])));
        assert!(!fits(connect("not", vec![connect("not", vec![is("a", "3")])])));
    }

    #[test]
    fn numbers_of_any_length_are_compared_exactly() {
        for (less, more) in [
            ("0", "1"),
            ("-1", "0"),
            ("-2", "-1"),
            ("-1", "+1"),
            ("9", "10"),
            ("0.5", "0.51"),
            ("1.09", "1.1"),
            ("99999999999999999999999999999999", "100000000000000000000000000000000"),
            ("0.00000000000000000000000000000001", "0.1"),
            ("-0.1", "0"),
        ] {
            assert_eq!(compare_numbers(less, more), Some(Ordering::Less), "{less} {more}");
            assert_eq!(compare_numbers(more, less), Some(Ordering::Greater), "{more} {less}");
        }
        for (a, b) in [("1", "01.00"), ("0", "-0"), ("+7", "7"), ("-0.0", "0")] {
            assert_eq!(compare_numbers(a, b), Some(Ordering::Equal), "{a} {b}");
        }
        for bad in ["", "-", ".", "1.", ".1", "1e3", "0x1", "1,5", "1.2.3", "--1", "NaN", " 1"] {
            assert_eq!(compare_numbers(bad, "1"), None, "{bad}");
        }
    }

    #[test]
    fn a_filter_that_is_not_valid_is_refused() {
        let is = || compare("a", "eq", "1", &[]);
        for (root, expected) in [
            (FilterNode::default(), FilterError::Unknown),
            (compare("a", "xx", "1", &[]), FilterError::Unknown),
            (connect("xor", vec![is()]), FilterError::Unknown),
            (compare("", "eq", "1", &[]), FilterError::Unfit),
            (compare("a", "eq", "", &[]), FilterError::Unfit),
            (compare("a", "eq", "1", &["2"]), FilterError::Unfit),
            (compare("a", "in", "", &[]), FilterError::Unfit),
            (compare("a", "in", "1", &["1"]), FilterError::Unfit),
            (compare("a", "ex", "1", &[]), FilterError::Unfit),
            (compare("a", "nex", "", &["1"]), FilterError::Unfit),
            (compare("a", "gt", "", &[]), FilterError::Unfit),
            (connect("and", vec![]), FilterError::Unfit),
            (connect("or", vec![]), FilterError::Unfit),
            (connect("not", vec![]), FilterError::Unfit),
            (connect("not", vec![is(), is()]), FilterError::Unfit),
            (connect("and", vec![is(), connect("or", vec![])]), FilterError::Unfit),
        ] {
            assert_eq!(error(root), Some(expected));
        }
    }

    #[test]
    fn nodes_and_depth_have_limits() {
        let is = || compare("a", "eq", "1", &[]);
        let wide = |count: usize| connect("or", (0..count).map(|_| is()).collect());
        assert_eq!(error(wide(TagsFilter::NODES_MAX - 1)), None);
        assert_eq!(error(wide(TagsFilter::NODES_MAX)), Some(FilterError::TooManyNodes));
        let deep = |depth: usize| (1..depth).fold(is(), |inner, _| connect("not", vec![inner]));
        assert_eq!(error(deep(TagsFilter::DEPTH_MAX)), None);
        assert_eq!(error(deep(TagsFilter::DEPTH_MAX + 1)), Some(FilterError::TooDeep));
        for error in [FilterError::TooLong, FilterError::TooManyNodes, FilterError::TooDeep] {
            let limit = match error {
                FilterError::TooLong => TagsFilter::BYTES_MAX,
                FilterError::TooManyNodes => TagsFilter::NODES_MAX,
                _ => TagsFilter::DEPTH_MAX,
            };
            assert!(error.to_string().contains(&limit.to_string()), "{error}");
        }
    }

    #[test]
    fn equal_filters_are_equal_and_their_size_is_known() {
        let of = |vals: &[&str]| {
            let vals: Vec<String> = vals.iter().map(|text| (*text).to_owned()).collect();
            let vals: Vec<&str> = vals.iter().map(String::as_str).collect();
            let inner = vec![compare("a", "in", "", &vals), compare("b", "ex", "", &[])];
            TagsFilter::new(connect("and", inner)).unwrap()
        };
        assert_eq!(of(&["x", "y"]), of(&["y", "x", "y"]));
        assert_ne!(of(&["x", "y"]), of(&["x", "z"]));
        assert!(of(&["x", "y"]).heap_bytes() > 2 * size_of::<Node>() + 4);
    }
}
