//! YAML, as far as configuration files use it: one document of tables, lists and plain values, with anchors.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};
use serde_json::{Map, Value};

use super::value::DEPTH_MAX;

/// Values of a document, with those that aliases repeat.
const VALUES_MAX: usize = 100_000;

/// The value of a YAML document. The error names the place.
pub fn parse(text: &str) -> Result<Value, String> {
    let mut reader = Reader::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| shown(&error))?;
        reader.read(event).map_err(|fault| at(&span, &fault))?;
    }
    Ok(reader.root.unwrap_or(Value::Null))
}

fn shown(error: &ScanError) -> String {
    let marker = error.marker();
    format!("{} at line {} column {}", error.info(), marker.line(), marker.col() + 1)
}

fn at(span: &Span, fault: &str) -> String {
    format!("{fault} at line {} column {}", span.start.line(), span.start.col() + 1)
}

#[derive(Default)]
struct Reader {
    /// Tables and lists that are not complete, each with its anchor.
    open: Vec<(Node, usize)>,
    root: Option<Value>,
    anchors: HashMap<usize, Value>,
    values: usize,
    documents: usize,
}

enum Node {
    List(Vec<Value>),
    /// A table, and the key whose value is next.
    Table(Map<String, Value>, Option<String>),
}

impl Reader {
    fn read(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err("a second document".to_owned());
                }
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::Scalar(text, style, anchor, tag) => {
                return self.add(of_scalar(&text, style, tag.as_deref()), anchor);
            }
            Event::Alias(anchor) => {
                let value = self.anchors.get(&anchor).cloned();
                return self.add(value.ok_or("an alias of itself")?, 0);
            }
            Event::SequenceStart(anchor, _) => return self.open(Node::List(Vec::new()), anchor),
            Event::MappingStart(anchor, _) => {
                return self.open(Node::Table(Map::new(), None), anchor);
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let (node, anchor) = self.open.pop().ok_or("an end without a start")?;
                let value = match node {
                    Node::List(values) => Value::Array(values),
                    Node::Table(table, _) => Value::Object(table),
                };
                return self.add(value, anchor);
            }
        }
        Ok(())
    }

    fn open(&mut self, node: Node, anchor: usize) -> Result<(), String> {
        if self.open.len() >= DEPTH_MAX {
            return Err(format!("more than {DEPTH_MAX} levels of tables and lists"));
        }
        self.open.push((node, anchor));
        Ok(())
    }

    fn add(&mut self, value: Value, anchor: usize) -> Result<(), String> {
        self.values += 1 + if anchor == 0 { size(&value) } else { 0 };
        if self.values > VALUES_MAX {
            return Err(format!("more than {VALUES_MAX} values"));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        match self.open.last_mut() {
            None => self.root = Some(value),
            Some((Node::List(values), _)) => values.push(value),
            Some((Node::Table(table, key), _)) => match (key.take(), value) {
                (None, Value::String(name)) => *key = Some(name),
                (None, Value::Bool(name)) => *key = Some(name.to_string()),
                (None, Value::Number(name)) => *key = Some(name.to_string()),
                (None, _) => return Err("a key that is not a text".to_owned()),
                (Some(key), Value::Object(merged)) if key == "<<" => merge(table, merged),
                (Some(key), Value::Array(all)) if key == "<<" => {
                    for merged in all {
                        let Value::Object(merged) = merged else {
                            return Err("<< merges tables".to_owned());
                        };
                        merge(table, merged);
                    }
                }
                (Some(key), value) => {
                    table.insert(key, value);
                }
            },
        }
        Ok(())
    }
}

/// Adds what a table does not have yet.
fn merge(table: &mut Map<String, Value>, merged: Map<String, Value>) {
    for (key, value) in merged {
        table.entry(key).or_insert(value);
    }
}

/// Number of values in a value that is repeated; it is at most [`DEPTH_MAX`] levels deep, or an alias made it so.
fn size(value: &Value) -> usize {
    match value {
        Value::Array(values) => values.iter().map(|value| 1 + size(value)).sum(),
        Value::Object(table) => table.values().map(|value| 1 + size(value)).sum(),
        _ => 0,
    }
}

/// A scalar of the core schema (YAML 1.2.2, 10.3), with `yes` and `no` as texts.
fn of_scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
    if style != ScalarStyle::Plain || is_text {
        return Value::from(text);
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let of_radix = |digits, radix| i64::from_str_radix(digits, radix).ok();
    let number = match text.get(..2) {
        Some("0x") => of_radix(&text[2..], 16),
        Some("0o") => of_radix(&text[2..], 8),
        _ => text.parse().ok(),
    };
    let begins_like_a_number = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    match number {
        Some(number) => Value::from(number),
        None if begins_like_a_number => {
            text.parse::<f64>().map_or_else(|_| Value::from(text), Value::from)
        }
        None => Value::from(text),
    }
}
