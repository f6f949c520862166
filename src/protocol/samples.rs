//! Which values would fit a schema? What the tests let clients say.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Map, Value, json};

use super::judge::resolved;

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
    use super::judge::fits;
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
