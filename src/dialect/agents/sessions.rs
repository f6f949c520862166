//! Agent sessions: made by a backend, by REST, or by connecting in debug mode. (In progress.)

use serde_json::Value;

use super::super::Asker;
use super::super::publish::Refusal;
use crate::ids::RoomName;
use crate::model::{Record, Rows, RowsError, Transaction};

/// What a session is made with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct New {
    /// Canonical; made when absent.
    pub id: Option<String>,
    /// Who may use it in token mode; without an owner anybody with the rights.
    pub owner: Option<String>,
    pub wallet_address: Option<String>,
    pub config: Option<Value>,
}

/// `session:{canonical id}`
pub fn room_of(id: &str) -> RoomName {
    RoomName::new(&format!("session:{id}"))
}

/// The canonical spelling of a session id: lower-case for a UUID in any spelling, otherwise none.
pub fn canonical(_text: &str) -> Option<String> {
    None
}

/// The id of a session's room.
pub fn id_of_room(room: &str) -> Option<&str> {
    room.strip_prefix("session:")
}

/// Makes it, with the event `session_created`. Making it again with the same id gives the one that is there, unless its
/// owner is another.
pub fn create(_new: &New, _asker: &Asker, _rows: &mut dyn Transaction) -> Result<Result<Record, Refusal>, RowsError> {
    Ok(Err(Refusal::NoSuchRoom))
}

/// The session, when it is there and this asker may use it: not deleted, and in token mode (`Asker::verified`) not
/// another user's.
pub fn find(_id: &str, _asker: &Asker, _rows: &mut dyn Rows) -> Result<Option<Record>, RowsError> {
    Ok(None)
}

/// Marks it deleted and says so in its room.
pub fn delete(_id: &str, _asker: &Asker, _rows: &mut dyn Transaction) -> Result<bool, RowsError> {
    Ok(false)
}
