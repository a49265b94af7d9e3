//! Compiles the Mesos definitions in `proto/` without a `protoc`, and writes the descriptor tables that the JSON
//! mapping and the check of `required` fields walk (see `src/mesos/table.rs`).

#[path = "build/init.rs"]
mod init;
#[path = "build/version.rs"]
mod version;

use std::{
    collections::HashMap,
    env,
    fmt::Write as _,
    fs,
    io::{Error, Result},
    path::PathBuf,
};

use heck::{ToSnakeCase, ToUpperCamelCase};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

const PROTOS: [&str; 4] = [
    "mesos/v1/mesos.proto",
    "mesos/v1/executor.proto",
    "mesos/v1/scheduler.proto",
    "mesos/v1/agent.proto",
];

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    init::compile()?;
    version::tell();
    println!("cargo::rerun-if-changed=proto");
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("proto");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let descriptors = protox::compile(PROTOS, [&root]).map_err(Error::other)?;
    let tables = Tables::collect(&descriptors);
    fs::write(out.join("mesos.tables.rs"), tables.render()?)?;
    fs::write(out.join("mesos.each.rs"), tables.render_each())?;
    prost_build::Config::new()
        .bytes([".mesos.v1.ExecutorInfo.data", ".mesos.v1.TaskInfo.data"])
        // Ordered maps: the same message always gives the same bytes.
        .btree_map(["."])
        .compile_fds(descriptors)
}

/// Every message and enum of the definitions, by full name with the leading dot that descriptors use.
#[derive(Default)]
struct Tables<'d> {
    messages: Vec<(String, &'d DescriptorProto)>,
    enums: Vec<(String, &'d EnumDescriptorProto)>,
    places: HashMap<String, usize>,
}

impl<'d> Tables<'d> {
    fn collect(set: &'d FileDescriptorSet) -> Self {
        let mut tables = Tables::default();
        for file in set
            .file
            .iter()
            .filter(|file| file.package().starts_with("mesos."))
        {
            let scope = format!(".{}", file.package());
            for message in &file.message_type {
                tables.add_message(&scope, message);
            }
            for values in &file.enum_type {
                tables.add_enum(&scope, values);
            }
        }
        tables
    }

    fn add_message(&mut self, scope: &str, message: &'d DescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        for nested in &message.nested_type {
            self.add_message(&name, nested);
        }
        for values in &message.enum_type {
            self.add_enum(&name, values);
        }
        self.places.insert(name.clone(), self.messages.len());
        self.messages.push((name, message));
    }

    fn add_enum(&mut self, scope: &str, values: &'d EnumDescriptorProto) {
        let name = format!("{scope}.{}", values.name());
        self.places.insert(name.clone(), self.enums.len());
        self.enums.push((name, values));
    }

    fn place(&self, name: &str) -> Result<usize> {
        self.places
            .get(name)
            .copied()
            .ok_or_else(|| Error::other(format!("{name} is not defined")))
    }

    fn message(&self, name: &str) -> Result<&'d DescriptorProto> {
        let place = self.place(name)?;
        self.messages
            .get(place)
            .map(|(_, message)| *message)
            .ok_or_else(|| Error::other(format!("{name} is not a message")))
    }

    fn render(&self) -> Result<String> {
        let mut out = String::new();
        for (place, (name, message)) in self.messages.iter().enumerate() {
            let mut fields: Vec<_> = message.field.iter().collect();
            fields.sort_by_key(|field| field.number());
            if fields.len() > 128 {
                return Err(Error::other(format!(
                    "{name} has more fields than the seen set holds"
                )));
            }
            let mut by_name: Vec<usize> = (0..fields.len()).collect();
            by_name.sort_by_key(|&index| fields[index].name());
            let mut required = 0u128;
            let mut rendered = String::new();
            for (index, field) in fields.iter().enumerate() {
                let label = field.label();
                if label == Label::Required {
                    required |= 1 << index;
                }
                let oneof = field
                    .oneof_index
                    .and_then(|index| message.oneof_decl.get(index as usize));
                let kind = self.kind(name, field)?;
                let _ = write!(
                    rendered,
                    "\n    Field {{ name: {:?}, number: {}, label: Label::{label:?}, kind: {kind}, default: {}, deprecated: {}, oneof: {:?} }},",
                    field.name(),
                    field.number(),
                    default(field)?,
                    field.options.as_ref().is_some_and(|options| options.deprecated()),
                    oneof.map(|oneof| oneof.name()),
                );
            }
            let _ = writeln!(
                out,
                "static M{place}: MessageTable = MessageTable {{ name: {:?}, required: {required:#x}, by_name: &{by_name:?}, fields: &[{rendered}\n] }};",
                &name[1..],
            );
        }
        for (place, (name, values)) in self.enums.iter().enumerate() {
            let pairs: Vec<_> = values
                .value
                .iter()
                .map(|value| (value.name(), value.number()))
                .collect();
            let _ = writeln!(
                out,
                "static E{place}: EnumTable = EnumTable {{ name: {:?}, values: &{pairs:?} }};",
                &name[1..],
            );
        }
        let all = |letter, count| {
            (0..count)
                .map(|place| format!("&{letter}{place}"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let _ = writeln!(
            out,
            "/// Every message, entries of maps included.\npub static MESSAGES: &[&MessageTable] = &[{}];\n/// Every enum.\npub static ENUMS: &[&EnumTable] = &[{}];",
            all('M', self.messages.len()),
            all('E', self.enums.len()),
        );
        for (place, (name, _)) in self.structs() {
            let _ = writeln!(
                out,
                "impl Message for {} {{ const NAME: &'static str = {:?}; const TABLE: &'static MessageTable = &M{place}; }}",
                rust_path(name),
                &name[1..],
            );
        }
        Ok(out)
    }

    /// A macro that hands every message type to another macro; for tests that must leave none out.
    fn render_each(&self) -> String {
        let mut out = String::from("macro_rules! each_message { ($of:ident) => {\n");
        for (_, (name, _)) in self.structs() {
            let _ = writeln!(out, "$of!($crate::mesos::{});", rust_path(name));
        }
        out + "}; }\n"
    }

    /// The messages that are Rust types: all but the entries of maps.
    fn structs(&self) -> impl Iterator<Item = (usize, &(String, &'d DescriptorProto))> {
        self.messages
            .iter()
            .enumerate()
            .filter(|(_, (_, message))| !is_map_entry(message))
    }

    fn kind(&self, message: &str, field: &FieldDescriptorProto) -> Result<String> {
        Ok(match field.r#type() {
            Type::Bool => "Kind::Bool".into(),
            Type::Int32 => "Kind::Int32".into(),
            Type::Int64 => "Kind::Int64".into(),
            Type::Uint32 => "Kind::Uint32".into(),
            Type::Uint64 => "Kind::Uint64".into(),
            Type::Double => "Kind::Double".into(),
            Type::String => "Kind::String".into(),
            Type::Bytes => "Kind::Bytes".into(),
            Type::Enum => format!("Kind::Enum(&E{})", self.place(field.type_name())?),
            Type::Message => {
                let target = self.message(field.type_name())?;
                let place = self.place(field.type_name())?;
                if is_map_entry(target) {
                    if target
                        .field
                        .iter()
                        .any(|field| field.name() == "key" && field.r#type() != Type::String)
                    {
                        return Err(Error::other(format!(
                            "{message}.{}: only text can be a key",
                            field.name()
                        )));
                    }
                    format!("Kind::Map(&M{place})")
                } else {
                    format!("Kind::Message(&M{place})")
                }
            }
            other => {
                return Err(Error::other(format!(
                    "{message}.{}: no table for {other:?}",
                    field.name()
                )));
            }
        })
    }
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message
        .options
        .as_ref()
        .is_some_and(|options| options.map_entry())
}

/// The declared default as JSON text in a Rust expression.
fn default(field: &FieldDescriptorProto) -> Result<String> {
    let Some(text) = &field.default_value else {
        return Ok("None".into());
    };
    let json = match field.r#type() {
        Type::Bool | Type::Int32 | Type::Int64 | Type::Uint32 | Type::Uint64 => text.clone(),
        Type::Double => format!("{:?}", text.parse::<f64>().map_err(Error::other)?),
        Type::Enum | Type::String if !text.contains(['"', '\\']) => format!("\"{text}\""),
        _ => {
            return Err(Error::other(format!(
                "{}: no JSON text for the default {text}",
                field.name()
            )));
        }
    };
    Ok(format!("Some({json:?})"))
}

/// Where prost puts a message: `.mesos.v1.Offer.Operation` is `v1::offer::Operation`.
fn rust_path(name: &str) -> String {
    let parts: Vec<&str> = name.trim_start_matches(".mesos.").split('.').collect();
    let (last, modules) = parts.split_last().unwrap_or((&"", &[]));
    let mut path = String::new();
    for module in modules {
        path += &module.to_snake_case();
        path += "::";
    }
    path + &last.to_upper_camel_case()
}
