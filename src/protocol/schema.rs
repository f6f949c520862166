//! Fragments of JSON Schema, short to write: what the tables of this folder are made of.
//!
//! Only words that mean the same in draft 7, which AsyncAPI reads, and in 2020-12, which OpenAPI 3.1 reads. A field whose
//! name ends with `?` may be absent.

use serde_json::{Map, Value, json};

pub type Schema = Value;

/// An object that may hold more than what is listed.
pub fn open<const N: usize>(fields: [(&str, Schema); N]) -> Schema {
    object(fields.into(), true)
}

/// An object of exactly these fields: where clients compare bytes, one more is a change of the contract.
pub fn exact<const N: usize>(fields: [(&str, Schema); N]) -> Schema {
    object(fields.into(), false)
}

fn object(fields: Vec<(&str, Schema)>, more: bool) -> Schema {
    let required: Vec<&str> = fields.iter().map(|(name, _)| *name).filter(|name| !name.ends_with('?')).collect();
    let mut schema = json!({"type": "object", "required": required, "additionalProperties": more});
    let properties: Map<String, Value> =
        fields.iter().map(|(name, schema)| (name.trim_end_matches('?').to_owned(), schema.clone())).collect();
    put(&mut schema, "properties", Value::Object(properties));
    schema
}

pub fn text() -> Schema {
    json!({"type": "string"})
}

/// Of one to so many characters. The code counts bytes: whatever is longer than this is refused, and so is some of what
/// holds more than ASCII.
pub fn text_of(max: usize) -> Schema {
    json!({"type": "string", "minLength": 1, "maxLength": max})
}

pub fn matching(pattern: &str) -> Schema {
    json!({"type": "string", "pattern": pattern})
}

pub fn is(word: &str) -> Schema {
    json!({"type": "string", "const": word})
}

pub fn one_of<'w>(words: impl IntoIterator<Item = &'w str>) -> Schema {
    json!({"type": "string", "enum": words.into_iter().collect::<Vec<_>>()})
}

pub fn none_of(words: &[&str]) -> Schema {
    json!({"type": "string", "not": {"enum": words}})
}

pub fn flag() -> Schema {
    json!({"type": "boolean"})
}

pub fn always(value: bool) -> Schema {
    json!({"type": "boolean", "const": value})
}

pub fn number() -> Schema {
    json!({"type": "number"})
}

/// A whole number, not negative.
pub fn count() -> Schema {
    json!({"type": "integer", "minimum": 0})
}

pub fn within(least: u64, most: u64) -> Schema {
    json!({"type": "integer", "minimum": least, "maximum": most})
}

pub fn any() -> Schema {
    json!({"description": "any JSON value"})
}

pub fn map() -> Schema {
    json!({"type": "object"})
}

/// An object whose values are all alike.
pub fn map_of(schema: Schema) -> Schema {
    json!({"type": "object", "additionalProperties": schema})
}

pub fn list(schema: Schema) -> Schema {
    json!({"type": "array", "items": schema})
}

pub fn null() -> Schema {
    json!({"type": "null"})
}

pub fn nullable(schema: Schema) -> Schema {
    either([schema, null()])
}

pub fn either<const N: usize>(schemas: [Schema; N]) -> Schema {
    json!({"anyOf": Vec::from(schemas)})
}

pub fn noted(mut schema: Schema, note: &str) -> Schema {
    put(&mut schema, "description", note.into());
    schema
}

/// A schema of `#/components/schemas`.
pub fn refer(name: &str) -> Schema {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

pub fn uuid() -> Schema {
    matching("^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
}

const CIVIL: &str = "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}";
const FRACTION: &str = "([.][0-9]{6})?";

/// `2025-05-13T01:59:00.123456+00:00`
pub fn utc() -> Schema {
    matching(&format!("^{CIVIL}{FRACTION}[+]00:00$"))
}

/// `2025-05-13T01:59:00.123456Z`
pub fn zulu() -> Schema {
    matching(&format!("^{CIVIL}{FRACTION}Z$"))
}

/// Without a zone: UTC or the server's own, as the field says.
pub fn naive() -> Schema {
    matching(&format!("^{CIVIL}{FRACTION}$"))
}

pub fn put(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(fields) = object {
        fields.insert(key.to_owned(), value);
    }
}
