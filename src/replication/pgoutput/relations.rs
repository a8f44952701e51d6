//! What the stream has said about its tables, by oid; columns are found by name.

use std::collections::HashMap;
use std::sync::Arc;

use super::{DecodeError, Tuple, TypeName};

/// The server's own limit for a table's columns.
pub(super) const COLUMNS_MAX: usize = 1600;

/// An outbox has few tables, some thousand partitions at most; each costs about a kilobyte.
pub const RELATIONS_MAX: usize = 16_384;

/// What an update or delete says of the row before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaIdentity {
    /// The primary key.
    Default,
    /// Nothing.
    Nothing,
    /// The whole row.
    Full,
    /// The columns of an index.
    Index,
}

/// A table as the stream describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// Its oid, which the rows carry.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// What updates and deletes carry.
    pub identity: ReplicaIdentity,
    /// The published columns, in the order of the values.
    pub columns: Vec<Column>,
}

/// A column as the stream describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub type_oid: u32,
    /// The type's modifier, -1 for none.
    pub modifier: i32,
    /// Part of the replica identity.
    pub key: bool,
}

impl Relation {
    /// The place of a column in the rows.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// `schema.table`, as an operator writes it.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

/// The tables and types of one connection. A new connection starts with none: the server
/// describes each again.
#[derive(Clone, Debug, Default)]
pub struct Relations {
    by_oid: HashMap<u32, Arc<Relation>>,
    kinds: HashMap<u32, TypeName>,
}

impl Relations {
    /// Nothing described yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a description, in place of an earlier one of the same table.
    ///
    /// # Errors
    ///
    /// [`DecodeError::TooManyRelations`].
    pub fn describe(&mut self, relation: Relation) -> Result<Arc<Relation>, DecodeError> {
        let relation = Arc::new(relation);
        if self.by_oid.len() >= RELATIONS_MAX && !self.by_oid.contains_key(&relation.oid) {
            return Err(DecodeError::TooManyRelations { limit: RELATIONS_MAX });
        }
        self.by_oid.insert(relation.oid, Arc::clone(&relation));
        Ok(relation)
    }

    /// Takes the name of a type that is not built in.
    ///
    /// # Errors
    ///
    /// [`DecodeError::TooManyRelations`]: the same bound serves.
    pub fn name_type(&mut self, named: TypeName) -> Result<(), DecodeError> {
        if self.kinds.len() >= RELATIONS_MAX && !self.kinds.contains_key(&named.oid) {
            return Err(DecodeError::TooManyRelations { limit: RELATIONS_MAX });
        }
        self.kinds.insert(named.oid, named);
        Ok(())
    }

    /// The table of a row, which must have been described and must have as many columns as the
    /// row has values.
    ///
    /// # Errors
    ///
    /// [`DecodeError::UnknownRelation`], [`DecodeError::ColumnCount`]: the stream is out of step.
    pub fn of_row(&self, oid: u32, row: &Tuple) -> Result<&Arc<Relation>, DecodeError> {
        let relation = self.by_oid.get(&oid).ok_or(DecodeError::UnknownRelation { oid })?;
        if row.len() != relation.columns.len() {
            return Err(DecodeError::ColumnCount {
                table: relation.full_name(),
                expected: relation.columns.len(),
                found: row.len(),
            });
        }
        Ok(relation)
    }

    /// The last description of a table.
    pub fn get(&self, oid: u32) -> Option<&Arc<Relation>> {
        self.by_oid.get(&oid)
    }

    /// The name of a type, for messages: what the stream called it, else what Postgres does.
    pub fn type_name(&self, oid: u32) -> String {
        match self.kinds.get(&oid) {
            Some(named) => format!("{}.{}", named.schema, named.name),
            None => super::kind::built_in_name(oid)
                .map_or_else(|| format!("type with oid {oid}"), str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation(oid: u32, columns: &[&str]) -> Relation {
        let column = |name: &&str| Column {
            name: (*name).to_owned(),
            type_oid: 25,
            modifier: -1,
            key: false,
        };
        Relation {
            oid,
            schema: "public".to_owned(),
            name: "outbox".to_owned(),
            identity: ReplicaIdentity::Default,
            columns: columns.iter().map(column).collect(),
        }
    }

    fn row(values: usize) -> Tuple {
        Tuple { bytes: bytes::Bytes::new(), cells: vec![super::super::Cell::Null; values] }
    }

    #[test]
    fn a_new_description_replaces_the_old_and_moves_columns() {
        let mut relations = Relations::new();
        relations.describe(relation(7, &["id", "payload"])).unwrap();
        assert_eq!(relations.of_row(7, &row(2)).unwrap().column("payload"), Some(1));
        relations.describe(relation(7, &["payload", "extra", "id"])).unwrap();
        assert_eq!(relations.of_row(7, &row(3)).unwrap().column("payload"), Some(0));
        assert_eq!(relations.of_row(7, &row(3)).unwrap().column("gone"), None);
    }

    #[test]
    fn a_row_out_of_step_is_refused() {
        let mut relations = Relations::new();
        assert_eq!(relations.of_row(7, &row(1)), Err(DecodeError::UnknownRelation { oid: 7 }));
        relations.describe(relation(7, &["id"])).unwrap();
        let error = relations.of_row(7, &row(2)).unwrap_err();
        assert!(error.to_string().contains("public.outbox has 2 values"), "{error}");
    }

    #[test]
    fn the_number_of_tables_is_bounded() {
        let mut relations = Relations::new();
        for oid in 0..RELATIONS_MAX {
            relations.describe(relation(u32::try_from(oid).unwrap(), &[])).unwrap();
        }
        assert!(relations.describe(relation(3, &["again"])).is_ok());
        assert!(relations.describe(relation(u32::MAX, &[])).is_err());
    }

    #[test]
    fn types_are_named_for_people() {
        let mut relations = Relations::new();
        let (schema, name) = ("shop".to_owned(), "status".to_owned());
        relations.name_type(TypeName { oid: 99_999, schema, name }).unwrap();
        assert_eq!(relations.type_name(99_999), "shop.status");
        assert_eq!(relations.type_name(1700), "numeric");
        assert_eq!(relations.type_name(88_888), "type with oid 88888");
    }
}
