//! The JSON of the REST replies: a prompt in its several attires, errors as the clients' framework words them.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;

use super::expand::Expansion;
use super::wire::json;
use crate::dialect::time;
use crate::http::Response;
use crate::model::Document;

/// One name that a document includes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Dependency {
    /// Canonical when it is known, otherwise as written.
    pub id: String,
    pub is_missing: bool,
}

/// A prompt as the REST API shows it; what may be None is some endpoints' own.
#[derive(Debug, Serialize)]
pub struct Prompt<'a> {
    pub id: &'a str,
    pub name: &'a str,
    pub filename: String,
    pub directory: &'a str,
    pub content: &'a str,
    pub description: Option<&'a str>,
    pub tags: &'a [String],
    pub created_at: String,
    pub updated_at: String,
    pub unique_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory_info: Option<DirectoryInfo<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dependencies: Option<&'a [Dependency]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warnings: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sanitized_message: Option<&'a str>,
}

#[derive(Debug, Serialize)]
pub struct DirectoryInfo<'a> {
    name: &'a str,
    path: &'a str,
}

impl<'a> Prompt<'a> {
    fn of(document: &'a Document) -> Prompt<'a> {
        Prompt {
            id: &document.id,
            name: &document.name,
            filename: format!("{}.md", document.name),
            directory: &document.directory,
            content: &document.content,
            description: document.description.as_deref(),
            tags: &document.tags,
            created_at: time::zulu(document.created_at),
            updated_at: time::zulu(document.updated_at),
            unique_id: Document::unique_id(&document.directory, &document.name),
            display_name: None,
            directory_info: None,
            dependencies: None,
            warnings: None,
            directory_name: None,
            sanitized_message: None,
        }
    }

    /// For listings and the replies to writes.
    pub fn with_directory_name(document: &'a Document) -> Prompt<'a> {
        Prompt { directory_name: Some(directory_name(&document.directory)), ..Prompt::of(document) }
    }

    /// For the reply to a GET of one.
    pub fn with_directory_info(document: &'a Document) -> Prompt<'a> {
        let info = DirectoryInfo { name: directory_name(&document.directory), path: &document.directory };
        Prompt { directory_info: Some(info), ..Prompt::of(document) }
    }
}

/// A directory's last part.
pub fn directory_name(directory: &str) -> &str {
    directory.rsplit('/').next().unwrap_or(directory)
}

/// The name where it says which prompt is meant, the id where several bear the name.
pub fn display_name(document: &Document, bearers: usize) -> &str {
    if bearers > 1 { &document.id } else { &document.name }
}

/// Both generations' reply to an expansion, so that neither client has to be told apart.
pub fn expansion(prompt_id: Option<&str>, content: &str, expansion: &Expansion) -> Bytes {
    #[derive(Serialize)]
    struct Union<'a> {
        prompt_id: Option<&'a str>,
        original_content: &'a str,
        expanded_content: &'a str,
        content: &'a str,
        expanded: &'a str,
        dependencies: Vec<&'a String>,
        warnings: &'a [String],
    }
    json(&Union {
        prompt_id,
        original_content: content,
        expanded_content: &expansion.text,
        content,
        expanded: &expansion.text,
        dependencies: expansion.dependencies.iter().collect(),
        warnings: &expansion.warnings,
    })
}

/// An error as FastAPI's `HTTPException` spells it.
pub fn detail(status: u16, detail: &str) -> Response {
    #[derive(Serialize)]
    struct Detail<'a> {
        detail: &'a str,
    }
    Response::json(status, json(&Detail { detail }))
}

pub fn not_found(text: &str) -> Response {
    detail(404, &missing(text))
}

pub fn missing(text: &str) -> String {
    format!("Prompt '{text}' not found")
}

/// What is wrong with one place in a request, as FastAPI's validation spells it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fault {
    pub loc: Vec<Step>,
    pub msg: Cow<'static, str>,
    pub r#type: &'static str,
}

/// One step to that place.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Step {
    Name(&'static str),
    Index(usize),
}

pub fn unprocessable(faults: &[Fault]) -> Response {
    #[derive(Serialize)]
    struct Faults<'a> {
        detail: &'a [Fault],
    }
    Response::json(422, json(&Faults { detail: faults }))
}
