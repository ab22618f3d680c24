//! Environment variables in values of the settings file: `${NAME}`.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::value::At;
use crate::config::limits::SETTINGS_FILE_BYTES_MAX;

/// The name of an environment variable, and its value if that is UTF-8.
pub(super) type Variable = (String, Option<String>);

/// The environment that values are completed from.
#[derive(Debug)]
pub(super) struct Environment<'e> {
    variables: &'e [Variable],
    /// Bytes that variables may still add. With few bytes in the file, many long variables could be asked for.
    bytes_left: usize,
}

impl<'e> Environment<'e> {
    /// An environment with these variables, in the order of their names.
    pub(super) fn new(variables: &'e [Variable]) -> Self {
        let bytes_left = usize::try_from(SETTINGS_FILE_BYTES_MAX).expect("a small limit");
        Self { variables, bytes_left }
    }

    /// Replaces each `${NAME}` in the texts of a table by the variable of that name, once: the result is not looked at
    /// again. `$${` stands for the text `${`; any other `$` for itself. Returns what is wrong.
    pub(super) fn complete(&mut self, table: &mut DeTable<'_>) -> Vec<At<String>> {
        let mut faults = Vec::new();
        table.iter_mut().for_each(|(_, value)| self.complete_value(value, &mut faults));
        faults
    }

    fn complete_value(&mut self, value: &mut Spanned<DeValue<'_>>, faults: &mut Vec<At<String>>) {
        let at = value.span().start;
        match value.get_mut() {
            DeValue::String(text) if text.contains("${") => match self.completed(text) {
                Ok(completed) => *text = completed.into(),
                Err(fault) => faults.push((at, fault)),
            },
            DeValue::Array(values) => {
                values.iter_mut().for_each(|value| self.complete_value(value, faults));
            }
            DeValue::Table(table) => faults.extend(self.complete(table)),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => {}
        }
    }

    fn completed(&mut self, text: &str) -> Result<String, String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, after) = (&rest[..at], &rest[at + 2..]);
            if let Some(before) = before.strip_suffix('$') {
                out.push_str(before);
                out.push_str("${");
                rest = after;
                continue;
            }
            out.push_str(before);
            let name = after.split_once('}').filter(|(name, _)| is_name(name));
            let Some((name, behind)) = name else {
                return Err("${ is followed by the name of an environment variable and }; $${ stands for the text ${"
                    .to_owned());
            };
            let value = self.value(name)?;
            self.bytes_left = self.bytes_left.checked_sub(value.len()).ok_or_else(|| {
                format!("environment variables add more than {SETTINGS_FILE_BYTES_MAX} bytes")
            })?;
            out.push_str(value);
            rest = behind;
        }
        out.push_str(rest);
        Ok(out)
    }

    fn value(&self, name: &str) -> Result<&'e str, String> {
        let Ok(index) = self.variables.binary_search_by(|(other, _)| (**other).cmp(name)) else {
            return Err(format!("the environment variable {name} is not set"));
        };
        let value = self.variables[index].1.as_deref();
        value.ok_or_else(|| format!("the environment variable {name} is not UTF-8"))
    }
}

/// Whether this is the name of a variable that a shell can set (POSIX 8.1).
fn is_name(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.bytes().all(is_word) && text.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Vec<Variable> {
        let mut all: Vec<Variable> = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned())))
            .collect();
        all.push(("BYTES".to_owned(), None));
        all.sort_unstable();
        all
    }

    #[test]
    fn names_are_replaced_once_and_other_text_stays() {
        let variables =
            variables(&[("A", "a"), ("_b2", "${A}"), ("EMPTY", ""), ("Z", "$"), ("a", "x")]);
        let mut environment = Environment::new(&variables);
        for (text, expected) in [
            ("${A}", "a"),
            ("<${A}${A}>${EMPTY}", "<aa>"),
            ("${_b2}", "${A}"),
            ("$${A}", "${A}"),
            ("$$${A}", "$${A}"),
            ("${Z}{A}", "${A}"),
            ("$A ^[a-z]+$ $$ {A}", "$A ^[a-z]+$ $$ {A}"),
            ("$${", "${"),
            ("$${ ${a}}", "${ x}"),
        ] {
            assert_eq!(environment.completed(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_does_not_name_a_variable_is_refused() {
        let variables = variables(&[("A", "a")]);
        let mut environment = Environment::new(&variables);
        for text in ["${", "${A", "x${}", "${A:-b}", "${1}", "${ A }", "${A.B}", "${${A}}"] {
            let fault = environment.completed(text).unwrap_err();
            assert!(fault.contains("$${ stands for the text ${"), "{text}: {fault}");
        }
        for (text, words) in [("${B}", "B is not set"), ("${BYTES}", "BYTES is not UTF-8")] {
            let fault = environment.completed(text).unwrap_err();
            assert!(fault.contains(words), "{text}: {fault}");
        }
    }

    #[test]
    fn variables_add_a_limited_number_of_bytes() {
        let max = usize::try_from(SETTINGS_FILE_BYTES_MAX).unwrap();
        let variables = variables(&[("LONG", &"x".repeat(max / 2)), ("A", "a")]);
        let mut environment = Environment::new(&variables);
        assert_eq!(environment.completed("${LONG}${LONG}").map(|text| text.len()), Ok(max));
        assert!(environment.completed("${A}").unwrap_err().contains("add more than"));
    }
}
