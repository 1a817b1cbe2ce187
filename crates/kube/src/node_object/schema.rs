//! The schemas of the API's own types, as far as a node's object needs them. k8s-openapi has them for all of its types,
//! with its feature `schemars`, which makes building it take minutes more.

use schemars::{Schema, SchemaGenerator, json_schema};

/// Of an optional `Time`.
pub(super) fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time", "nullable": true})
}

/// Of a list of `Condition`, one of each type, as the API's own objects have them.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "lastTransitionTime": {
                    "type": "string",
                    "format": "date-time",
                    "description": "When the status last changed.",
                },
                "message": {"type": "string", "description": "What it means, for a reader."},
                "observedGeneration": {
                    "type": "integer",
                    "format": "int64",
                    "description": "The metadata.generation that it was found with.",
                },
                "reason": {"type": "string", "description": "Why, in one word in CamelCase."},
                "status": {
                    "type": "string",
                    "enum": ["True", "False", "Unknown"],
                    "description": "Whether it is so.",
                },
                "type": {"type": "string", "description": "What is said to be so, in CamelCase."},
            },
        },
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}
