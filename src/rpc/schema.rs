//! What protobuf messages look like, read while goms runs, and messages as JSON and back.
//!
//! JSON is that of proto3 (<https://protobuf.dev/programming-guides/json/>): names in lowerCamelCase (those of the .proto are
//! read too), integers of 64 bits as text, bytes in base64, and fields that have their default left out. A field that a message does not have is
//! refused.

mod json_schema;

pub use json_schema::{MessageSchemas, REFERENCE};

use std::collections::HashSet;

use bytes::Bytes;
use http_v1::uri::PathAndQuery;
use prost::Message;
use prost_reflect::prost_types::{FileDescriptorProto, FileDescriptorSet};
use prost_reflect::{
    DescriptorError, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
};

use super::MethodName;
use super::method::ends_with;

/// Services and messages, as a descriptor set tells them.
#[derive(Clone, Debug)]
pub struct Schema {
    pool: DescriptorPool,
}

/// Why bytes tell of no messages.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// They are no descriptors.
    #[error("this is no descriptor set; write one with `protoc --include_imports --descriptor_set_out=FILE`")]
    Form(#[source] prost::DecodeError),
    /// They contradict each other, or some are missing.
    #[error("the descriptors do not fit together; were they written with `protoc --include_imports`?")]
    Content(#[source] DescriptorError),
    /// There is no service in it.
    #[error("the descriptors name no service")]
    Empty,
}

/// Why a message could not be written in the other form.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// JSON that is none of this message.
    #[error("cannot read the message as `{name}`")]
    Json {
        /// The message's full name.
        name: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Bytes that are none of this message.
    #[error("the bytes are no `{name}`")]
    Protobuf {
        /// The message's full name.
        name: String,
        /// What is wrong with them.
        #[source]
        source: prost::DecodeError,
    },
}

impl Schema {
    /// Of the bytes of a `FileDescriptorSet`.
    ///
    /// # Errors
    /// [`SchemaError`].
    pub fn decode(set: &[u8]) -> Result<Self, SchemaError> {
        let set = FileDescriptorSet::decode(set).map_err(SchemaError::Form)?;
        let schema = Self::of_files(set.file)?;
        if schema.pool.services().len() == 0 { Err(SchemaError::Empty) } else { Ok(schema) }
    }

    /// Of files in any order. Of `google/protobuf/*.proto` those that are missing are taken from where goms has them.
    ///
    /// # Errors
    /// [`SchemaError::Content`].
    pub fn of_files(mut files: Vec<FileDescriptorProto>) -> Result<Self, SchemaError> {
        let well_known = DescriptorPool::global();
        let mut names: HashSet<String> = files.iter().map(|file| file.name().to_owned()).collect();
        let mut at = 0;
        while let Some(file) = files.get(at) {
            let missing: Vec<String> = file.dependency.iter().filter(|name| !names.contains(*name)).cloned().collect();
            for name in missing {
                if let Some(known) = well_known.get_file_by_name(&name) {
                    files.push(known.file_descriptor_proto().clone());
                    names.insert(name);
                }
            }
            at += 1;
        }
        let mut pool = DescriptorPool::new();
        pool.add_file_descriptor_protos(files).map_err(SchemaError::Content)?;
        Ok(Self { pool })
    }

    /// The full names of its services.
    pub fn services(&self) -> impl Iterator<Item = String> + '_ {
        self.pool.services().map(|service| service.full_name().to_owned())
    }

    /// A method; of a service that was named without its package the first one that ends so.
    #[must_use]
    pub fn method(&self, name: &MethodName<'_>) -> Option<SchemaMethod> {
        let found = match name.package {
            "" => self.pool.services().find(|service| ends_with(service.full_name(), name.service)),
            _ => self.pool.get_service_by_name(&name.full_service()),
        };
        let service = found?;
        let descriptor = service.methods().find(|method| method.name() == name.method)?;
        SchemaMethod::new(descriptor)
    }

    /// The methods of a service (`pkg.Service`).
    #[must_use]
    pub fn methods(&self, service: &str) -> Vec<SchemaMethod> {
        let Some(service) = self.pool.get_service_by_name(service) else { return Vec::new() };
        service.methods().filter_map(SchemaMethod::new).collect()
    }

    /// `Service.Method` of each method of each service, for messages.
    #[must_use]
    pub fn listed(&self) -> String {
        let services = self.pool.services();
        let all =
            services.flat_map(|service| service.methods().map(|one| one.full_name().to_owned()).collect::<Vec<_>>());
        all.collect::<Vec<_>>().join(", ")
    }
}

/// A method whose messages are known.
#[derive(Clone, Debug)]
pub struct SchemaMethod {
    descriptor: MethodDescriptor,
    path: PathAndQuery,
}

impl SchemaMethod {
    fn new(descriptor: MethodDescriptor) -> Option<Self> {
        let path = format!("/{}/{}", descriptor.parent_service().full_name(), descriptor.name());
        Some(Self { path: PathAndQuery::try_from(path).ok()?, descriptor })
    }

    /// `/pkg.Service/Method`.
    #[must_use]
    pub fn path(&self) -> &PathAndQuery {
        &self.path
    }

    /// `Hello`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.descriptor.name()
    }

    /// Whether the caller sends a stream, and whether it gets one.
    #[must_use]
    pub fn streams(&self) -> (bool, bool) {
        (self.descriptor.is_client_streaming(), self.descriptor.is_server_streaming())
    }

    /// A request's JSON as protobuf.
    ///
    /// # Errors
    /// [`MessageError::Json`], with the name of a field that the message does not have.
    pub fn to_protobuf(&self, json: &[u8]) -> Result<Vec<u8>, MessageError> {
        let input = self.descriptor.input();
        let bad = |source| MessageError::Json { name: self.descriptor.input().full_name().to_owned(), source };
        let mut reader = serde_json::Deserializer::from_slice(json);
        let message = DynamicMessage::deserialize(input, &mut reader).map_err(bad)?;
        reader.end().map_err(bad)?;
        Ok(message.encode_to_vec())
    }

    /// An answer's protobuf as JSON.
    ///
    /// # Errors
    /// [`MessageError::Protobuf`]; [`MessageError::Json`] where JSON has no such value (a time in the year 10,000).
    pub fn to_json(&self, message: &[u8]) -> Result<Bytes, MessageError> {
        let name = || self.descriptor.output().full_name().to_owned();
        let message = DynamicMessage::decode(self.descriptor.output(), message);
        let message = message.map_err(|source| MessageError::Protobuf { name: name(), source })?;
        let json = serde_json::to_vec(&message).map_err(|source| MessageError::Json { name: name(), source })?;
        Ok(json.into())
    }

    /// What a request holds.
    #[must_use]
    pub fn input(&self) -> Shape {
        Shape::of(&self.descriptor.input())
    }

    /// What an answer holds.
    #[must_use]
    pub fn output(&self) -> Shape {
        Shape::of(&self.descriptor.output())
    }
}

/// A message for people.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Shape {
    /// Its full name: `greeter.Request`.
    pub name: String,
    /// Its fields: name in JSON, and type (`string`, `repeated int32`, `map<string, greeter.Pair>`).
    pub fields: Vec<ShapeField>,
}

/// A field of a message.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ShapeField {
    /// As JSON has it.
    pub name: String,
    /// As a .proto writes it.
    #[serde(rename = "type")]
    pub kind: String,
}

impl Shape {
    fn of(message: &MessageDescriptor) -> Self {
        let field = |field: FieldDescriptor| ShapeField { name: field.json_name().to_owned(), kind: type_of(&field) };
        Self { name: message.full_name().to_owned(), fields: message.fields().map(field).collect() }
    }
}

impl std::fmt::Display for Shape {
    /// `greeter.Request { name: string, ages: repeated int32 }`
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.name)?;
        for (place, field) in self.fields.iter().enumerate() {
            write!(out, "{}{}: {}", if place == 0 { " { " } else { ", " }, field.name, field.kind)?;
        }
        if self.fields.is_empty() { out.write_str(" {}") } else { out.write_str(" }") }
    }
}

fn type_of(field: &FieldDescriptor) -> String {
    if field.is_map()
        && let Kind::Message(entry) = field.kind()
    {
        let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
        return format!("map<{:?}, {:?}>", key.kind(), value.kind());
    }
    if field.is_list() { format!("repeated {:?}", field.kind()) } else { format!("{:?}", field.kind()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> Schema {
        Schema::decode(tonic_health::pb::FILE_DESCRIPTOR_SET).unwrap()
    }

    fn named(schema: &Schema, name: &str) -> Option<SchemaMethod> {
        schema.method(&MethodName::parse(name).unwrap())
    }

    #[test]
    fn messages_are_json_and_back() {
        let check = named(&health(), "Health.Check").unwrap();
        assert_eq!((check.path().as_str(), check.streams()), ("/grpc.health.v1.Health/Check", (false, false)));
        assert_eq!(named(&health(), "/grpc.health.v1.Health/Watch").unwrap().streams(), (false, true));
        assert_eq!(check.to_protobuf(br#"{"service":"ab"}"#).unwrap(), [10, 2, b'a', b'b']);
        assert_eq!(check.to_protobuf(b" {} ").unwrap(), [0; 0]);
        assert_eq!(check.to_json(&[8, 1]).unwrap(), r#"{"status":"SERVING"}"#);
        assert_eq!(check.to_json(&[]).unwrap(), "{}");
        let shape = check.input().to_string();
        assert_eq!(shape, "grpc.health.v1.HealthCheckRequest { service: string }");
        assert_eq!(
            check.output().to_string(),
            "grpc.health.v1.HealthCheckResponse { status: grpc.health.v1.HealthCheckResponse.ServingStatus }"
        );
    }

    #[test]
    fn what_is_no_such_message_is_told() {
        let check = named(&health(), "Health.Check").unwrap();
        let told = |json: &str| {
            let error = check.to_protobuf(json.as_bytes()).unwrap_err();
            format!("{error}: {}", std::error::Error::source(&error).unwrap())
        };
        for (json, wanted) in [
            (r#"{"servise":"a"}"#, "unrecognized field name 'servise'"),
            (r#"{"service":7}"#, "invalid type"),
            ("{} {}", "trailing characters"),
            ("[]", "invalid type: sequence"),
            ("{", "EOF"),
        ] {
            let told = told(json);
            assert!(told.starts_with("cannot read the message as `grpc.health.v1.HealthCheckRequest`: "), "{told}");
            assert!(told.contains(wanted), "{told}");
        }
        assert!(matches!(check.to_json(&[8]), Err(MessageError::Protobuf { .. })));
        let deep = "[".repeat(100_000);
        assert!(check.to_protobuf(deep.as_bytes()).is_err());
    }

    #[test]
    fn what_is_no_descriptor_set_is_told() {
        assert!(matches!(Schema::decode(b"junk"), Err(SchemaError::Form(_))));
        assert!(matches!(Schema::decode(b""), Err(SchemaError::Empty)));
        let lonely = FileDescriptorProto { dependency: vec!["not/there.proto".to_owned()], ..Default::default() };
        assert!(matches!(Schema::of_files(vec![lonely]), Err(SchemaError::Content(_))));
        let timed = FileDescriptorProto {
            name: Some("a.proto".to_owned()),
            dependency: vec!["google/protobuf/api.proto".to_owned()],
            ..Default::default()
        };
        Schema::of_files(vec![timed]).unwrap();
        assert!(named(&health(), "Health.Nothing").is_none() && named(&health(), "other.Health.Check").is_none());
    }
}
