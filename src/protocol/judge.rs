//! A small judge for the tests: does a value fit a schema, and which values would?
//!
//! It knows the words that `schema` writes and stops at any other, so that it cannot overlook one. Patterns are left to the
//! foreign validators, which have regular expressions (tools/clients/py/protocol_suite.py); here they have examples.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Map, Value, json};

/// `document`: where references lead.
pub fn fits(schema: &Value, value: &Value, document: &Value) -> Result<(), String> {
    let words = schema.as_object().expect("a schema is an object");
    // The type first: the other words rely on it.
    if let Some(kind) = words.get("type").and_then(Value::as_str).filter(|kind| !is_of(kind, value)) {
        return Err(format!("is no {kind}: {value}"));
    }
    words.iter().try_for_each(|(word, bound)| judge(word, bound, schema, value, document))
}

fn judge(word: &str, bound: &Value, schema: &Value, value: &Value, document: &Value) -> Result<(), String> {
    let wrong = |why: String| Err(format!("{why}: {value}"));
    match word {
        "type" | "description" | "properties" | "pattern" => {}
        "$ref" => fits(resolved(bound, document), value, document)?,
        "const" if bound != value => return wrong(format!("is not {bound}")),
        "enum" if !bound.as_array().unwrap().contains(value) => return wrong(format!("is none of {bound}")),
        "const" | "enum" => {}
        "not" if fits(bound, value, document).is_ok() => return wrong(format!("fits {bound}")),
        "not" => {}
        "anyOf" => {
            let schemas = bound.as_array().unwrap();
            if !schemas.iter().any(|schema| fits(schema, value, document).is_ok()) {
                let whys: Vec<String> =
                    schemas.iter().filter_map(|schema| fits(schema, value, document).err()).collect();
                return wrong(format!("fits nothing, {whys:?}"));
            }
        }
        "minimum" if value.as_f64() < bound.as_f64() => return wrong(format!("is below {bound}")),
        "maximum" if value.as_f64() > bound.as_f64() => return wrong(format!("is above {bound}")),
        "minLength" if length(value) < bound.as_u64() => return wrong(format!("is shorter than {bound}")),
        "maxLength" if length(value) > bound.as_u64() => return wrong(format!("is longer than {bound}")),
        "minimum" | "maximum" | "minLength" | "maxLength" => {}
        "items" => {
            for item in value.as_array().unwrap() {
                fits(bound, item, document)?;
            }
        }
        "required" => {
            for name in bound.as_array().unwrap() {
                if value.get(name.as_str().unwrap()).is_none() {
                    return wrong(format!("has no {name}"));
                }
            }
        }
        "additionalProperties" => {
            for (name, value) in value.as_object().unwrap() {
                match (schema.get("properties").and_then(|known| known.get(name)), bound) {
                    (Some(schema), _) | (None, schema @ Value::Object(_)) => {
                        fits(schema, value, document).map_err(|why| format!("{name} {why}"))?;
                    }
                    (None, Value::Bool(true)) => {}
                    (None, _) => return wrong(format!("holds {name}")),
                }
            }
        }
        other => panic!("the judge does not know {other}"),
    }
    Ok(())
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "string" => value.is_string(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        other => panic!("the judge does not know {other}"),
    }
}

fn length(value: &Value) -> Option<u64> {
    value.as_str().map(|text| text.chars().count() as u64)
}

fn resolved<'d>(reference: &Value, document: &'d Value) -> &'d Value {
    let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
    document.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere"))
}

/// Values that fit, the first with as little as will do, the second with everything; then one for each thing that a field
/// may be besides.
pub fn samples(schema: &Value, document: &Value) -> Vec<Value> {
    if let Some(reference) = schema.get("$ref") {
        return samples(resolved(reference, document), document);
    }
    if let Some(value) = schema.get("const") {
        return vec![value.clone()];
    }
    if let Some(values) = schema.get("enum") {
        return values.as_array().unwrap().clone();
    }
    if let Some(schemas) = schema.get("anyOf") {
        return schemas.as_array().unwrap().iter().flat_map(|schema| samples(schema, document)).collect();
    }
    if let Some(pattern) = schema.get("pattern") {
        return vec![example(pattern.as_str().unwrap()).into()];
    }
    match schema.get("type").and_then(Value::as_str) {
        None => vec![json!("text"), json!({"a": [1]})],
        Some("string") => vec!["text".into()],
        Some("boolean") => vec![true.into(), false.into()],
        Some("null") => vec![Value::Null],
        Some("number") => vec![json!(1.5), json!(2)],
        Some("integer") => ["minimum", "maximum"].into_iter().filter_map(|end| schema.get(end).cloned()).collect(),
        Some("array") => vec![json!([]), Value::Array(samples(&schema["items"], document))],
        Some("object") => objects(schema, document),
        Some(other) => panic!("the judge does not know {other}"),
    }
}

fn objects(schema: &Value, document: &Value) -> Vec<Value> {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return vec![json!({}), json!({"a": [1]})];
    };
    let all: Vec<(&String, Vec<Value>)> =
        properties.iter().map(|(name, schema)| (name, samples(schema, document))).collect();
    let required = schema["required"].as_array().unwrap();
    let first = |(name, values): &(&String, Vec<Value>)| ((*name).clone(), values.first().unwrap().clone());
    let fullest: Map<String, Value> = all.iter().map(first).collect();
    let least = all.iter().filter(|(name, _)| required.iter().any(|one| *one == **name)).map(first).collect();
    let mut found = vec![Value::Object(least), Value::Object(fullest.clone())];
    for (name, values) in &all {
        for value in values.iter().skip(1) {
            let mut other = fullest.clone();
            other.insert((*name).clone(), value.clone());
            found.push(Value::Object(other));
        }
    }
    found
}

fn example(pattern: &str) -> &'static str {
    [
        (super::schema::uuid(), UUID),
        (super::schema::zulu(), "2025-05-13T01:59:00Z"),
        (super::native::room(), "r:1"),
        (super::native::kind(), "note"),
        (json!({"pattern": "^[0-9]+$"}), "1"),
        (json!({"pattern": "^(urn:uuid:)?[{]?[0-9A-Fa-f-]{32,40}[}]?$"}), UUID),
        (json!({"pattern": "^c[0-9]+[.][0-9]+[.][0-9]+$"}), "c0.4.1"),
    ]
    .into_iter()
    .find(|(schema, _)| schema["pattern"] == pattern)
    .map(|(_, example)| example)
    .unwrap_or_else(|| panic!("give an example for {pattern}"))
}

pub const UUID: &str = "0af0bd5c-0000-4000-8000-00000000000a";

#[test]
fn the_judge_is_judged() {
    use super::schema::{any, count, exact, is, list, nullable, open, text};
    let schema =
        exact([("type", is("a")), ("n?", nullable(count())), ("l?", list(text())), ("o?", open([("x", any())]))]);
    for (value, holds) in [
        (json!({"type": "a"}), true),
        (json!({"type": "a", "n": null, "l": ["x"], "o": {"x": [], "y": 1}}), true),
        (json!({"type": "b"}), false),
        (json!({"n": 1}), false),
        (json!({"type": "a", "n": -1}), false),
        (json!({"type": "a", "n": 1.5}), false),
        (json!({"type": "a", "l": [1]}), false),
        (json!({"type": "a", "o": {}}), false),
        (json!({"type": "a", "m": 1}), false),
        (json!([]), false),
    ] {
        assert_eq!(fits(&schema, &value, &Value::Null).is_ok(), holds, "{value}");
    }
    let all = samples(&schema, &Value::Null);
    assert!(all.iter().all(|sample| fits(&schema, sample, &Value::Null).is_ok()), "{all:?}");
    assert_eq!(all.first(), Some(&json!({"type": "a"})));
}
