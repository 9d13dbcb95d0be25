//! The JSON Schema of the short form, made from the attribute table.

use crate::{
    attributes::{ATTRIBUTES, Attribute, AttributeKind},
    limits::LIMITS,
};
use serde_json::{Map, Value, json};

/// The schema, draft 2020-12.
pub fn schema() -> Value {
    let strings = json!({ "type": "array", "items": { "type": "string" } });
    let mut properties: Map<String, Value> = ATTRIBUTES.iter().map(property).collect();
    properties.insert("$schema".to_owned(), json!({ "type": "string", "description": "Where this schema is." }));
    let limits: Map<String, Value> = LIMITS
        .iter()
        .map(|info| (info.name.to_owned(), json!({ "type": "string", "description": info.description })))
        .collect();
    properties["fodder"] = json!({
        "type": "object",
        "description": "Settings of this program.",
        "additionalProperties": false,
        "properties": { "profile": {
            "type": "string",
            "description": "Sandbox profile: `host-tools` (the machine's own tools) or `nix` (what Nix gives a builder)."
        }, "network": {
            "type": "object",
            "description": "Who may be called; it can take away from what whoever builds it allows, and gives nothing.",
            "additionalProperties": false,
            "properties": {
                "mode": { "enum": ["gateway", "none"] },
                "allow": strings.clone(),
                "deny": strings.clone()
            }
        }, "limits": {
            "type": "object",
            "description": "Limits that are lower than those of whoever builds it.",
            "additionalProperties": false,
            "properties": limits
        } }
    });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "fodder short form",
        "description": "A derivation described by phases. Attributes that are not listed become environment variables.",
        "type": "object",
        "anyOf": [{ "required": ["name"] }, { "required": ["pname", "version"] }],
        "$defs": { "script": { "anyOf": [{ "type": "string" }, strings] }, "list": { "anyOf": [{ "type": "string" }, strings] },
                   "switch": { "anyOf": [{ "type": "boolean" }, { "enum": ["", "1", 0, 1] }] },
                   "text": { "type": ["string", "number", "boolean"] }},
        "properties": properties
    })
}

fn property(attribute: &Attribute) -> (String, Value) {
    let mut schema = match attribute.kind {
        AttributeKind::Text => json!({ "$ref": "#/$defs/text" }),
        AttributeKind::Script => json!({ "$ref": "#/$defs/script" }),
        AttributeKind::List | AttributeKind::Source => json!({ "$ref": "#/$defs/list" }),
        AttributeKind::Switch => json!({ "$ref": "#/$defs/switch" }),
        AttributeKind::Object => json!({ "type": "object" }),
        AttributeKind::Any => json!({}),
    };
    schema["description"] = attribute.description.into();
    (attribute.name.to_owned(), schema)
}
