//! The query of a target, as forms and `URLSearchParams` write it.

use std::borrow::Cow;

use super::HttpFault;

/// The pairs of a query: `a=1&b=2`. A name without `=` has an empty value; empty pairs are skipped.
pub fn query_pairs(query: Option<&str>) -> QueryPairs<'_> {
    QueryPairs { rest: query }
}

/// One pair of a query. A value is decoded when it is used: a malformed value that is not used is not an error.
#[derive(Clone, Debug)]
pub struct QueryPair<'q> {
    /// The decoded name; a malformed one is not decoded, as no known name is malformed.
    pub name: Cow<'q, str>,
    value: &'q str,
}

impl<'q> QueryPair<'q> {
    /// The decoded value.
    pub fn value(&self) -> Result<Cow<'q, str>, HttpFault> {
        decode(self.value)
    }
}

/// The iterator of [`query_pairs`].
#[derive(Clone, Debug)]
pub struct QueryPairs<'q> {
    rest: Option<&'q str>,
}

impl<'q> Iterator for QueryPairs<'q> {
    type Item = QueryPair<'q>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.rest?;
            let pair = match rest.split_once('&') {
                Some((pair, rest)) => {
                    self.rest = Some(rest);
                    pair
                }
                None => {
                    self.rest = None;
                    rest
                }
            };
            if pair.is_empty() {
                continue;
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name).unwrap_or(Cow::Borrowed(name));
            return Some(QueryPair { name, value });
        }
    }
}

/// Decodes percent sequences to bytes, and `+` to a space.
fn decode(text: &str) -> Result<Cow<'_, str>, HttpFault> {
    let is_encoded = |byte: &u8| matches!(byte, b'%' | b'+');
    let Some(first) = text.as_bytes().iter().position(is_encoded) else {
        return Ok(Cow::Borrowed(text));
    };
    let (plain, mut rest) = text.as_bytes().split_at(first);
    let mut decoded = Vec::with_capacity(text.len());
    decoded.extend_from_slice(plain);
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'+' => decoded.push(b' '),
            b'%' => {
                let [high, low, after @ ..] = rest else { return Err(HttpFault::QueryInvalid) };
                rest = after;
                decoded.push(hex_digit(*high)? << 4 | hex_digit(*low)?);
            }
            _ => decoded.push(byte),
        }
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| HttpFault::QueryInvalid)
}

fn hex_digit(byte: u8) -> Result<u8, HttpFault> {
    match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        b'A'..=b'F' => Ok(byte - b'A' + 10),
        _ => Err(HttpFault::QueryInvalid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(query: &str) -> Result<Vec<(String, String)>, HttpFault> {
        let pairs = query_pairs(Some(query));
        pairs.map(|pair| Ok((pair.name.to_string(), pair.value()?.into_owned()))).collect()
    }

    #[test]
    fn pairs_are_split_and_decoded() {
        let expected = [("a", "1"), ("b c", "d=e"), ("f", ""), ("", "g"), ("h", "€+ ")];
        let expected: Vec<_> = expected.map(|(a, b)| (a.to_owned(), b.to_owned())).into();
        assert_eq!(pairs("a=1&b+c=d=e&&f&=g&h=%E2%82%ac%2B+&"), Ok(expected));
        assert_eq!(pairs(""), Ok(vec![]));
        assert_eq!(query_pairs(None).count(), 0);
    }

    #[test]
    fn plain_values_are_borrowed() {
        let pair = query_pairs(Some("channel=news")).next().unwrap();
        assert!(matches!(pair.name, Cow::Borrowed("channel")));
        assert!(matches!(pair.value(), Ok(Cow::Borrowed("news"))));
    }

    #[test]
    fn invalid_percent_sequences_are_faults_in_values_that_are_used() {
        for bad in ["%", "%a", "%g0", "%0g", "%-1", "%FF", "%E2%82", "%ED%A0%80"] {
            assert_eq!(pairs(&format!("a={bad}")), Err(HttpFault::QueryInvalid), "{bad}");
            assert_eq!(pairs(&format!("{bad}=a")), Ok(vec![(bad.into(), "a".into())]), "{bad}");
        }
    }
}
