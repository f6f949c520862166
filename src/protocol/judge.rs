//! A small judge for the tests: does a value fit a schema?
//!
//! It knows the words that `schema` writes and stops at any other, so that it cannot overlook one. Patterns are left to the
//! foreign validators, which have regular expressions (tools/clients/py/protocol_suite.py); `samples` has examples for them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::Value;

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

/// Where a reference leads.
pub fn resolved<'d>(reference: &Value, document: &'d Value) -> &'d Value {
    let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
    document.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere"))
}
