//! What a message looks like in JSON, for documents and forms: JSON Schema 2020-12 of proto3's JSON
//! (<https://protobuf.dev/programming-guides/json/>).

use std::collections::BTreeMap;

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Value, json};

use super::SchemaMethod;

/// Messages that a method may reach; a schema of more is no form that anybody fills in.
const MOST_MESSAGES: usize = 200;

/// How a schema names another: OpenAPI's place for them.
pub const REFERENCE: &str = "#/components/schemas/";

/// The messages of a method.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MessageSchemas {
    /// The full name of what it takes: `greeter.Request`.
    pub request: String,
    /// The full name of what it gives.
    pub response: String,
    /// Every message that these reach, by full name; they name each other by [`REFERENCE`]. Of more than 200 the rest is left
    /// out, and what would name it is any object.
    pub all: BTreeMap<String, Value>,
}

impl SchemaMethod {
    /// The messages as JSON has them.
    #[must_use]
    pub fn json_schemas(&self) -> MessageSchemas {
        let (input, output) = (self.descriptor.input(), self.descriptor.output());
        let mut waiting = vec![input.clone(), output.clone()];
        let mut all = BTreeMap::new();
        while let Some(message) = waiting.pop() {
            let name = message.full_name().to_owned();
            if all.len() < MOST_MESSAGES && !all.contains_key(&name) {
                all.insert(name, of_message(&message, &mut waiting));
            }
        }
        cut(&mut all);
        MessageSchemas { request: input.full_name().to_owned(), response: output.full_name().to_owned(), all }
    }
}

/// What names a message that was left out is any object.
fn cut(all: &mut BTreeMap<String, Value>) {
    let known: Vec<String> = all.keys().map(|name| format!("{REFERENCE}{name}")).collect();
    let is_known = |named: &str| known.iter().any(|one| one == named);
    let mend = |value: &mut Value| {
        if value["$ref"].as_str().is_some_and(|named| !is_known(named)) {
            *value = json!({"type": "object"});
        }
    };
    for schema in all.values_mut() {
        let fields = schema["properties"].as_object_mut();
        for field in fields.into_iter().flat_map(|fields| fields.values_mut()) {
            for inner in ["items", "additionalProperties"] {
                if let Some(inner) = field.get_mut(inner) {
                    mend(inner);
                }
            }
            mend(field);
        }
    }
}

fn of_message(message: &MessageDescriptor, waiting: &mut Vec<MessageDescriptor>) -> Value {
    if let Some(known) = well_known(message.full_name()) {
        return known;
    }
    let mut properties = serde_json::Map::new();
    for field in message.fields() {
        let mut schema = of_field(&field, waiting);
        let choice = field.containing_oneof().filter(|choice| !choice.is_synthetic());
        if let (Some(choice), Some(object)) = (choice, schema.as_object_mut()) {
            object.insert("description".to_owned(), format!("one of `{}`", choice.name()).into());
        }
        properties.insert(field.json_name().to_owned(), schema);
    }
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

fn of_field(field: &FieldDescriptor, waiting: &mut Vec<MessageDescriptor>) -> Value {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => {
            json!({"type": "object", "additionalProperties": of_kind(&entry.map_entry_value_field().kind(), waiting)})
        }
        kind if field.is_list() => json!({"type": "array", "items": of_kind(&kind, waiting)}),
        kind => of_kind(&kind, waiting),
    }
}

fn of_kind(kind: &Kind, waiting: &mut Vec<MessageDescriptor>) -> Value {
    match kind {
        Kind::Double => json!({"type": "number", "format": "double"}),
        Kind::Float => json!({"type": "number", "format": "float"}),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => json!({"type": "integer", "format": "int32"}),
        Kind::Uint32 | Kind::Fixed32 => json!({"type": "integer", "format": "uint32", "minimum": 0}),
        // as text: many readers of JSON know no integers of 64 bits
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => json!({"type": "string", "format": "int64"}),
        Kind::Uint64 | Kind::Fixed64 => json!({"type": "string", "format": "uint64"}),
        Kind::Bool => json!({"type": "boolean"}),
        Kind::String => json!({"type": "string"}),
        Kind::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
        Kind::Enum(words) => of_enum(words),
        Kind::Message(message) => match well_known(message.full_name()) {
            Some(known) => known,
            None => {
                waiting.push(message.clone());
                json!({"$ref": format!("{REFERENCE}{}", message.full_name())})
            }
        },
    }
}

fn of_enum(words: &EnumDescriptor) -> Value {
    if words.full_name() == "google.protobuf.NullValue" {
        return json!({"type": "null"});
    }
    json!({"type": "string", "enum": words.values().map(|word| word.name().to_owned()).collect::<Vec<_>>()})
}

/// Messages that JSON writes in a form of their own.
fn well_known(name: &str) -> Option<Value> {
    Some(match name.strip_prefix("google.protobuf.")? {
        "Timestamp" => json!({"type": "string", "format": "date-time"}),
        "Duration" => json!({"type": "string", "examples": ["1.5s"]}),
        "FieldMask" => json!({"type": "string", "examples": ["name,address.street"]}),
        "Struct" | "Any" => json!({"type": "object"}),
        "Empty" => json!({"type": "object", "properties": {}, "additionalProperties": false}),
        "ListValue" => json!({"type": "array"}),
        "Value" => json!({}),
        "DoubleValue" | "FloatValue" => json!({"type": ["number", "null"]}),
        "Int32Value" | "UInt32Value" => json!({"type": ["integer", "null"]}),
        "Int64Value" | "UInt64Value" | "StringValue" | "BytesValue" => json!({"type": ["string", "null"]}),
        "BoolValue" => json!({"type": ["boolean", "null"]}),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::Schema;
    use super::*;

    #[test]
    fn a_method_tells_every_message_that_it_reaches() {
        let set = tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET;
        let schema = Schema::decode(set).unwrap();
        let method = schema.methods("grpc.reflection.v1.ServerReflection").remove(0);
        let told = method.json_schemas();
        assert_eq!(told.request, "grpc.reflection.v1.ServerReflectionRequest");
        assert_eq!(told.response, "grpc.reflection.v1.ServerReflectionResponse");
        let request = &told.all[&told.request];
        assert_eq!(request["properties"]["host"], json!({"type": "string"}));
        let chosen = &request["properties"]["fileContainingExtension"];
        assert_eq!(chosen["$ref"], format!("{REFERENCE}grpc.reflection.v1.ExtensionRequest"));
        assert_eq!(chosen["description"], "one of `message_request`");
        assert!(told.all.contains_key("grpc.reflection.v1.ServiceResponse"), "{:?}", told.all.keys());
        let numbers = &told.all["grpc.reflection.v1.ExtensionNumberResponse"]["properties"]["extensionNumber"];
        assert_eq!(numbers, &json!({"type": "array", "items": {"type": "integer", "format": "int32"}}));
        let files = &told.all["grpc.reflection.v1.FileDescriptorResponse"]["properties"]["fileDescriptorProto"];
        assert_eq!(files["items"], json!({"type": "string", "contentEncoding": "base64"}));
    }

    #[test]
    fn words_are_told_and_what_is_left_out_is_any_object() {
        let schema = Schema::decode(tonic_health::pb::FILE_DESCRIPTOR_SET).unwrap();
        let told = schema.methods("grpc.health.v1.Health").remove(0).json_schemas();
        assert_eq!(told.all[&told.response]["properties"]["status"]["enum"][1], "SERVING");
        let mut all =
            BTreeMap::from([("a".to_owned(), json!({"properties": {"b": {"$ref": "#/components/schemas/b"}}}))]);
        cut(&mut all);
        assert_eq!(all["a"]["properties"]["b"], json!({"type": "object"}));
    }
}
