//! A physical standby of a running server, made without `pg_basebackup`, which the fetched
//! binaries lack: an online backup with the SQL functions and a copy of the files.
//!
//! Promises that the standby streams through a physical slot of its own on the primary, made
//! before the backup, so no WAL it needs can be removed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};

use super::{Postgres, State, change, prepare, sql, write_for_server};

/// What a standby should be.
#[derive(Debug, Clone, Default)]
pub struct StandbyOptions {
    /// The physical slot's name on the primary; `standby` if empty.
    pub slot: String,
    /// Keeps copies of the primary's failover slots (17 and newer), and makes the primary's
    /// logical walsenders wait for this standby (`synchronized_standby_slots`).
    pub failover_slots: bool,
    /// Settings over the primary's own.
    pub settings: Vec<(String, String)>,
}

/// Folders whose content a backup leaves out: the server makes it anew. Slots above all: a copied
/// one would hold WAL back for ever. WAL itself comes through the slot, whole.
const EMPTIED: [&str; 8] = [
    "pg_dynshmem",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_wal",
];
/// Files that belong to the running primary.
const LEFT_OUT: [&str; 2] = ["postmaster.pid", "postmaster.opts"];

impl Postgres {
    /// Copies this server into a standby, starts it and returns once it takes connections.
    pub fn standby(&self, options: StandbyOptions) -> Result<Postgres> {
        ensure!(
            !options.failover_slots || self.version >= 17,
            "{} cannot synchronise slots: failover slots need Postgres 17 or newer",
            self.name
        );
        let slot = if options.slot.is_empty() { "standby" } else { &options.slot };
        let (bin, folder) = prepare(&self.run, &self.bin, self.version, "standby")?;
        let make_slot =
            format!("select 1 from pg_create_physical_replication_slot('{slot}', true)");
        self.sql("postgres", &make_slot)?;
        let data = folder.join("data");
        self.backup_into(&data).with_context(|| format!("{} was not copied", self.name))?;
        write_for_server(&self.run, &data.join("standby.signal"), "")?;

        let mut settings = self.state().settings.clone();
        let primary = format!(
            "host={} port={} user={} dbname=postgres application_name={slot}",
            self.folder.display(),
            self.port,
            super::SUPERUSER
        );
        let streaming = [("primary_conninfo", primary.as_str()), ("primary_slot_name", slot)];
        change(&mut settings, &streaming);
        if options.failover_slots {
            let syncing = [("sync_replication_slots", "on"), ("hot_standby_feedback", "on")];
            change(&mut settings, &syncing);
            self.reload(&[("synchronized_standby_slots", slot)])?;
        }
        for (name, value) in &options.settings {
            change(&mut settings, &[(name, value)]);
        }
        Self::boot_anywhere(Self {
            name: format!("standby {slot} of {}", self.name),
            version: self.version,
            bin,
            folder,
            access: self.access,
            port: 0,
            run: Arc::clone(&self.run),
            state: Mutex::new(State { settings, process: None }),
        })
    }

    /// An online backup of this server into a new data directory.
    fn backup_into(&self, data: &Path) -> Result<()> {
        // 15 renamed the functions and dropped the exclusive mode, hence the third argument.
        let (start, stop) = if self.version >= 15 {
            (
                "select pg_backup_start('standby', true)",
                "select labelfile from pg_backup_stop(false)",
            )
        } else {
            (
                "select pg_start_backup('standby', true, false)",
                "select labelfile from pg_stop_backup(false, false)",
            )
        };
        let source = self.data();
        let rows = sql::with_client(self.config("postgres"), async |client| {
            // One session: the backup ends with it.
            sql::rows(client, start).await?;
            self.copy_data(&source, data, true)?;
            sql::rows(client, stop).await
        })?;
        let label = rows.into_iter().next().and_then(|row| row.into_iter().next().flatten());
        let label = label.context("the backup has no label")?;
        write_for_server(&self.run, &data.join("backup_label"), &label)
    }

    /// Copies a tree that changes meanwhile: a file that has gone is none that is needed, as the
    /// WAL replays its removal.
    fn copy_data(&self, from: &Path, to: &Path, top: bool) -> Result<()> {
        fs::create_dir(to)?;
        fs::set_permissions(to, fs::Permissions::from_mode(0o700))?;
        self.run.hand_over(to)?;
        let Ok(entries) = fs::read_dir(from) else { return Ok(()) };
        for entry in entries {
            let entry = entry?;
            let (name, source) = (entry.file_name(), entry.path());
            let word = name.to_string_lossy();
            let target = to.join(&name);
            if top && EMPTIED.contains(&word.as_ref()) {
                self.copy_folders(&source, &target)?;
            } else if entry.file_type()?.is_dir() {
                self.copy_data(&source, &target, false)?;
            } else if !(top && LEFT_OUT.contains(&word.as_ref())) {
                match fs::copy(&source, &target) {
                    Ok(_) => self.run.hand_over(&target)?,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error).context(source.display().to_string()),
                }
            }
        }
        Ok(())
    }

    /// An emptied folder; `pg_wal` needs its `archive_status`.
    fn copy_folders(&self, from: &Path, to: &Path) -> Result<()> {
        fs::create_dir(to)?;
        self.run.hand_over(to)?;
        let status = "archive_status";
        if from.join(status).is_dir() {
            fs::create_dir(to.join(status))?;
            self.run.hand_over(&to.join(status))?;
        }
        Ok(())
    }
}
