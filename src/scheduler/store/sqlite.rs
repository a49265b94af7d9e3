//! The embedded store: one SQLite file.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};
use serde::{Serialize, de::DeserializeOwned};

use super::{HISTORY, Store, StoreError};
use crate::{
    base::private,
    pod::{Pod, PodId, Version},
    scheduler::core::{Change, Instance, Saved, StoredPod, Trouble},
};

/// Grows with every change to the tables or to what their records mean.
const FORMAT: i64 = 2;

const TABLES: &str = "
    CREATE TABLE setting  (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE pod      (id TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE instance (id TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE version  (pod TEXT NOT NULL, millis INTEGER NOT NULL, record TEXT NOT NULL,
                           PRIMARY KEY (pod, millis)) WITHOUT ROWID;
    CREATE TABLE trouble  (id TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
";

/// From format 1, which forgot what had failed and which version was the newest of all.
const FROM_1: &str = "
    CREATE TABLE trouble  (id TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
    INSERT INTO setting SELECT 'newest', max(millis) FROM version HAVING max(millis) IS NOT NULL;
";

/// Room that is ours before anybody else fills the disk: pages of the file that are free, and as much of the
/// write-ahead log. Records that replace each other need no more.
const RESERVE: i64 = 4 << 20;
/// Transactions between two looks at what is left of it.
const LOOK: u32 = 512;

#[derive(Debug)]
pub struct Sqlite {
    connection: Connection,
    place: String,
    /// Transactions since the last look at the reserve.
    unlooked: u32,
}

impl Sqlite {
    /// Opens the file, or makes it. A second scheduler on the same file is kept out by its lock.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let place = path.display().to_string();
        let name = path
            .file_name()
            .ok_or_else(|| StoreError::NoFile { place: place.clone() })?;
        // Pods hold secrets; and what others may put beside the file, a journal for one, would be believed.
        let path = private::directory(path.parent().unwrap_or(Path::new("")))?.join(name);
        drop(private::file(&path)?);
        let connection = Connection::open(path).map_err(|source| StoreError::Database {
            doing: "open",
            place: place.clone(),
            source,
        })?;
        let mut store = Sqlite {
            connection,
            place,
            unlooked: 0,
        };
        // Whoever holds the lock holds it for good: waiting would not help.
        store
            .connection
            .busy_timeout(std::time::Duration::ZERO)
            .map_err(store.doing("open"))?;
        store.prepare()?;
        if let Err(error) = store.reserve() {
            tracing::warn!("the store {} has no reserve: {error}", store.place);
        }
        Ok(store)
    }

    /// Makes the file and its log as large as they are to be at least. To be ours, a page has to be written and given
    /// back: then others cannot have it, and we need not ask for it.
    fn reserve(&mut self) -> rusqlite::Result<()> {
        self.unlooked = 0;
        // The log begins anew, instead of growing by what the reserve needs.
        self.checkpoint()?;
        let transaction = self.connection.transaction()?;
        // One that was just being made when its maker died.
        transaction.execute_batch("DROP TABLE IF EXISTS reserve; CREATE TABLE reserve (room BLOB);")?;
        transaction.execute("INSERT INTO reserve VALUES (zeroblob(?1))", [RESERVE])?;
        transaction.commit()?;
        let written = self.checkpoint();
        self.connection.execute_batch("DROP TABLE reserve")?;
        written
    }

    /// Brings what is in the log into the file.
    fn checkpoint(&self) -> rusqlite::Result<()> {
        self.connection
            .query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(()))
    }

    /// Keeps the reserve up while that is possible; that it is not is no failure yet.
    fn look_after_reserve(&mut self) {
        self.unlooked += 1;
        if self.unlooked < LOOK {
            return;
        }
        self.unlooked = 0;
        let free = self.connection.query_row(
            "SELECT freelist_count * page_size FROM pragma_freelist_count, pragma_page_size",
            [],
            |row| row.get::<_, i64>(0),
        );
        if free.is_ok_and(|free| free < RESERVE / 2)
            && let Err(error) = self.reserve()
        {
            tracing::warn!("the reserve of the store {} shrinks: {error}", self.place);
        }
    }

    fn prepare(&mut self) -> Result<(), StoreError> {
        let doing = self.doing("prepare");
        // EXCLUSIVE keeps the lock for as long as we live: two schedulers would undo each other's work.
        let pragmas = "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
             PRAGMA temp_store = MEMORY;";
        self.connection.execute_batch(pragmas).map_err(&doing)?;
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Exclusive)
            .map_err(&doing)?;
        let found: i64 = transaction
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(&doing)?;
        match found {
            FORMAT => {}
            0 | 1 => {
                let tables = if found == 0 { TABLES } else { FROM_1 };
                transaction.execute_batch(tables).map_err(&doing)?;
                transaction
                    .pragma_update(None, "user_version", FORMAT)
                    .map_err(&doing)?;
            }
            found => {
                return Err(StoreError::TooNew {
                    place: self.place.clone(),
                    found,
                    known: FORMAT,
                });
            }
        }
        transaction.commit().map_err(&doing)
    }

    fn doing(&self, doing: &'static str) -> impl Fn(rusqlite::Error) -> StoreError + 'static {
        let place = self.place.clone();
        move |source| match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
                StoreError::InUse { place: place.clone() }
            }
            _ => StoreError::Database {
                doing,
                place: place.clone(),
                source,
            },
        }
    }

    fn setting(&self, name: &str) -> Result<Option<String>, StoreError> {
        let sql = "SELECT value FROM setting WHERE name = ?1";
        let value = self.connection.query_row(sql, [name], |row| row.get(0));
        value.optional().map_err(self.doing("read"))
    }

    /// The records of a table, with their keys.
    fn keyed<T: DeserializeOwned>(&self, table: &str) -> Result<Vec<(String, T)>, StoreError> {
        let doing = self.doing("read");
        let mut statement = self
            .connection
            .prepare(&format!("SELECT id, record FROM {table} ORDER BY id"))
            .map_err(&doing)?;
        let rows = statement
            .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
            .map_err(&doing)?;
        rows.map(|row| {
            let (id, record) = row.map_err(&doing)?;
            let parsed = self.parse(&format!("{table} {id}"), &record)?;
            Ok((id, parsed))
        })
        .collect()
    }

    fn records<T: DeserializeOwned>(&self, table: &str) -> Result<Vec<T>, StoreError> {
        let keyed = self.keyed(table)?.into_iter();
        Ok(keyed.map(|(_, record)| record).collect())
    }

    fn parse<T: DeserializeOwned>(&self, key: &str, record: &str) -> Result<T, StoreError> {
        serde_json::from_str(record).map_err(|source| StoreError::Record {
            place: self.place.clone(),
            key: key.to_owned(),
            source,
        })
    }
}

/// Our own types always serialise; a failure would be theirs to name.
fn record<T: Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

fn apply(transaction: &rusqlite::Transaction<'_>, change: &Change) -> rusqlite::Result<()> {
    let run = |sql: &str, params: &[&dyn rusqlite::ToSql]| -> rusqlite::Result<()> {
        transaction.prepare_cached(sql)?.execute(params).map(drop)
    };
    match change {
        Change::Framework(id) => run("INSERT OR REPLACE INTO setting VALUES ('framework', ?1)", &[id]),
        Change::Pod(stored) => run(
            "INSERT OR REPLACE INTO pod VALUES (?1, ?2)",
            &[&stored.pod.id.as_str(), &record(stored)?],
        ),
        Change::ForgetPod(id) => {
            run("DELETE FROM pod WHERE id = ?1", &[&id.as_str()])?;
            run("DELETE FROM trouble WHERE id = ?1", &[&id.as_str()])
        }
        Change::Trouble(id, trouble) if *trouble == Trouble::default() => {
            run("DELETE FROM trouble WHERE id = ?1", &[&id.as_str()])
        }
        Change::Trouble(id, trouble) => run(
            "INSERT OR REPLACE INTO trouble VALUES (?1, ?2)",
            &[&id.as_str(), &record(trouble)?],
        ),
        Change::Instance(instance) => run(
            "INSERT OR REPLACE INTO instance VALUES (?1, ?2)",
            &[&instance.id.to_string(), &record(instance)?],
        ),
        Change::ForgetInstance(id) => run("DELETE FROM instance WHERE id = ?1", &[&id.to_string()]),
        Change::Version(pod) => {
            let Some(version) = pod.version else { return Ok(()) };
            let id = pod.id.as_str();
            // Versions only grow.
            run(
                "INSERT OR REPLACE INTO setting VALUES ('newest', ?1)",
                &[&version.millis()],
            )?;
            run(
                "INSERT OR REPLACE INTO version VALUES (?1, ?2, ?3)",
                &[&id, &version.millis(), &record(pod)?],
            )?;
            run(
                "DELETE FROM version WHERE pod = ?1 AND millis <=
                 (SELECT millis FROM version WHERE pod = ?1 ORDER BY millis DESC LIMIT 1 OFFSET ?2)",
                &[&id, &(HISTORY as i64)],
            )
        }
    }
}

impl Store for Sqlite {
    fn load(&mut self) -> Result<Saved, StoreError> {
        let framework = self.setting("framework")?;
        let newest = self.setting("newest")?.and_then(|millis| millis.parse().ok());
        let pods: Vec<StoredPod> = self.records("pod")?;
        let instances: Vec<Instance> = self.records("instance")?;
        let current: BTreeMap<&PodId, Version> = pods.iter().map(|s| (&s.pod.id, s.version)).collect();
        let older: BTreeSet<(&PodId, Version)> = instances
            .iter()
            .filter(|instance| current.get(&instance.pod) != Some(&instance.version))
            .map(|instance| (&instance.pod, instance.version))
            .collect();
        let mut editions = Vec::new();
        for (id, version) in older {
            // One that has dropped out of the history is no reason not to start.
            editions.extend(self.version(id, version)?.map(Arc::new));
        }
        let troubles = self.keyed("trouble")?.into_iter();
        Ok(Saved {
            framework,
            newest: newest.and_then(Version::from_millis),
            // A pod's id is its key; one that is none belongs to nothing.
            troubles: troubles
                .filter_map(|(id, trouble)| Some((id.parse().ok()?, trouble)))
                .collect(),
            pods,
            instances,
            editions,
        })
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let doing = self.doing("write to");
        let transaction = self.connection.transaction().map_err(&doing)?;
        for change in changes {
            apply(&transaction, change).map_err(&doing)?;
        }
        transaction.commit().map_err(&doing)?;
        self.look_after_reserve();
        Ok(())
    }

    fn probe(&mut self) -> Result<(), StoreError> {
        // With the whole reserve: else the next change might be the next failure.
        self.reserve().map_err(self.doing("write to"))
    }

    fn versions(&mut self, id: &PodId) -> Result<Vec<Version>, StoreError> {
        let doing = self.doing("read");
        let mut statement = self
            .connection
            .prepare_cached("SELECT millis FROM version WHERE pod = ?1 ORDER BY millis")
            .map_err(&doing)?;
        let rows = statement
            .query_map([id.as_str()], |row| row.get(0))
            .map_err(&doing)?;
        let millis: Vec<i64> = rows.collect::<rusqlite::Result<_>>().map_err(&doing)?;
        Ok(millis.into_iter().filter_map(Version::from_millis).collect())
    }

    fn version(&mut self, id: &PodId, version: Version) -> Result<Option<Pod>, StoreError> {
        let text: Option<String> = self
            .connection
            .query_row(
                "SELECT record FROM version WHERE pod = ?1 AND millis = ?2",
                params![id.as_str(), version.millis()],
                |row| row.get(0),
            )
            .optional()
            .map_err(self.doing("read"))?;
        text.map(|text| self.parse(&format!("version {id} {version}"), &text))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::{self, InstanceId, Profile};

    fn pod(millis: i64) -> Arc<Pod> {
        let definition = json!({"id": "/a/b", "labels": {"at": millis.to_string()}, "containers":
            [{"name": "c", "resources": {}, "exec": {"command": {"shell": "x"}}}]});
        let mut pod = pod::read(&definition, &Profile::default()).unwrap().pod;
        pod.version = Version::from_millis(millis);
        Arc::new(pod)
    }

    fn stored(millis: i64) -> StoredPod {
        let version = Version::from_millis(millis).unwrap();
        StoredPod {
            pod: pod(millis),
            version,
            config: version,
            removing: false,
            deployment: None,
        }
    }

    fn instance() -> Instance {
        let version = Version::from_millis(1).unwrap();
        let id = InstanceId::new(&pod(1).id, uuid::Uuid::from_u128(7));
        Instance::new(id, pod(1).id.clone(), version, version, version)
    }

    fn open(directory: &tempfile::TempDir) -> Sqlite {
        Sqlite::open(&directory.path().join("deep/state.db")).unwrap()
    }

    #[test]
    fn what_was_stored_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let changes = [
            Change::Framework("F".to_owned()),
            Change::Pod(stored(1)),
            Change::Pod(stored(2)),
            Change::Instance(instance()),
        ];
        open(&directory).apply(&changes).unwrap();
        let saved = open(&directory).load().unwrap();
        assert_eq!(saved.framework.as_deref(), Some("F"));
        assert_eq!(saved.pods, [stored(2)]);
        assert_eq!(saved.instances, [instance()]);
        let forget = [
            Change::ForgetPod(pod(1).id.clone()),
            Change::ForgetInstance(instance().id),
        ];
        open(&directory).apply(&forget).unwrap();
        let saved = open(&directory).load().unwrap();
        assert!(saved.pods.is_empty() && saved.instances.is_empty());
    }

    #[test]
    fn the_history_is_bounded_and_outlives_the_pod() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(&directory);
        for millis in 0..60 {
            store.apply(&[Change::Version(pod(millis))]).unwrap();
        }
        store.apply(&[Change::ForgetPod(pod(0).id.clone())]).unwrap();
        let id = pod(0).id.clone();
        let versions: Vec<i64> = store
            .versions(&id)
            .unwrap()
            .into_iter()
            .map(Version::millis)
            .collect();
        assert_eq!(versions, (10..60).collect::<Vec<_>>());
        assert_eq!(
            store
                .version(&id, Version::from_millis(59).unwrap())
                .unwrap()
                .as_ref(),
            Some(&*pod(59))
        );
        assert_eq!(
            store.version(&id, Version::from_millis(9).unwrap()).unwrap(),
            None
        );
    }

    /// A file as the scheduler of format 1 wrote it.
    fn written_by_format_1(path: &Path) {
        let old = Connection::open(path).unwrap();
        old.execute_batch(
            "PRAGMA journal_mode = WAL;
             CREATE TABLE setting  (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
             CREATE TABLE pod      (id TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
             CREATE TABLE instance (id TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
             CREATE TABLE version  (pod TEXT NOT NULL, millis INTEGER NOT NULL, record TEXT NOT NULL,
                                    PRIMARY KEY (pod, millis)) WITHOUT ROWID;
             PRAGMA user_version = 1;
             INSERT INTO setting VALUES ('framework', 'F');",
        )
        .unwrap();
        let write = |table: &str, id: &str, record: serde_json::Value| {
            let sql = format!("INSERT INTO {table} VALUES (?1, ?2)");
            old.execute(&sql, params![id, record.to_string()]).unwrap();
        };
        write("pod", "/a/b", serde_json::to_value(stored(5)).unwrap());
        let mut record = serde_json::to_value(instance()).unwrap();
        record.as_object_mut().unwrap().remove("order").unwrap();
        write("instance", &instance().id.to_string(), record);
        for millis in [5, 9] {
            let record = serde_json::to_string(&*pod(millis)).unwrap();
            let sql = "INSERT INTO version VALUES ('/a/b', ?1, ?2)";
            old.execute(sql, params![millis, record]).unwrap();
        }
    }

    #[test]
    fn r5_a_store_of_format_1_is_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        written_by_format_1(&path);
        let saved = Sqlite::open(&path).unwrap().load().unwrap();
        assert_eq!(
            (saved.framework.as_deref(), saved.newest),
            (Some("F"), Version::from_millis(9))
        );
        assert_eq!(
            (&saved.pods[..], &saved.instances[..]),
            (&[stored(5)][..], &[instance()][..])
        );
        assert!(saved.troubles.is_empty());

        // And is one of ours from then on.
        let trouble = Trouble {
            delay: Some(std::time::Duration::from_millis(1150)),
            last_failure: Some(instance()),
        };
        let id = pod(5).id.clone();
        let change = Change::Trouble(id.clone(), trouble.clone());
        Sqlite::open(&path).unwrap().apply(&[change]).unwrap();
        let found = Sqlite::open(&path).unwrap().load().unwrap().troubles;
        assert_eq!(found, [(id.clone(), trouble.clone())]);
        for end in [
            Change::ForgetPod(id.clone()),
            Change::Trouble(id.clone(), Trouble::default()),
        ] {
            let mut store = Sqlite::open(&path).unwrap();
            store
                .apply(&[Change::Trouble(id.clone(), trouble.clone()), end])
                .unwrap();
            assert!(store.load().unwrap().troubles.is_empty());
        }

        // A pod whose history was never written has no newest version, and that is fine.
        let bare = directory.path().join("bare.db");
        written_by_format_1(&bare);
        Connection::open(&bare)
            .unwrap()
            .execute("DELETE FROM version", [])
            .unwrap();
        assert_eq!(Sqlite::open(&bare).unwrap().load().unwrap().newest, None);
    }

    /// A file system of a few megabytes, gone with the test.
    struct Tiny(tempfile::TempDir);

    impl Tiny {
        /// Seen by this thread only: others look at who mounts what.
        fn new() -> Self {
            use rustix::mount::{MountPropagationFlags, mount_change};
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            let place = tempfile::tempdir().unwrap();
            let options = c"size=32m,mode=0700";
            let flags = rustix::mount::MountFlags::empty();
            rustix::mount::mount("podling-test", place.path(), "tmpfs", flags, Some(options)).unwrap();
            Tiny(place)
        }

        /// Takes all that is left, as a member's log does.
        fn fill(&self) -> std::path::PathBuf {
            use std::io::Write as _;
            let path = self.0.path().join("log");
            let mut log = std::fs::File::create(&path).unwrap();
            let full = loop {
                if let Err(error) = log.write_all(&[b'x'; 4096]) {
                    break error;
                }
            };
            assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
            path
        }
    }

    impl Drop for Tiny {
        fn drop(&mut self) {
            let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
        }
    }

    #[test]
    fn r5_on_a_full_disk_the_store_has_a_reserve_and_then_waits_and_loses_nothing() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let tiny = Tiny::new();
        let path = tiny.0.path().join("state.db");
        let mut store = Sqlite::open(&path).unwrap();
        let log = tiny.fill();
        // Records that replace each other go on for ever.
        for millis in 0..3000 {
            store.apply(&[Change::Pod(stored(millis))]).unwrap();
        }
        // What only grows comes to an end, but not at once.
        let large = |millis: i64| {
            let mut pod = (*pod(millis)).clone();
            pod.id = format!("/p{millis}").parse().unwrap();
            pod.labels.insert("x".to_owned(), "y".repeat(20_000));
            Change::Version(Arc::new(pod))
        };
        let mut written = 0;
        let error = loop {
            match store.apply(&[large(written)]) {
                Ok(()) => written += 1,
                Err(error) => break error,
            }
        };
        assert!(written > 100, "{written} records of 20 kB");
        assert!(error.to_string().contains("full"), "{error}");
        assert!(store.probe().is_err());
        let id = |millis: i64| format!("/p{millis}").parse().unwrap();
        assert_eq!(store.versions(&id(written)).unwrap(), [], "all or nothing");
        assert_eq!(store.load().unwrap().pods, [stored(2999)], "it can be read");
        std::fs::remove_file(log).unwrap();
        store.probe().unwrap();
        store.apply(&[large(written)]).unwrap();
        drop(store);
        let mut store = Sqlite::open(&path).unwrap();
        for millis in 0..=written {
            assert_eq!(store.versions(&id(millis)).unwrap().len(), 1, "{millis}");
        }
    }

    #[test]
    fn s6_nobody_else_reads_the_store_or_puts_one_there() {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(&directory);
        store.apply(&[Change::Pod(stored(1))]).unwrap();
        let mode = |name: &str| std::fs::metadata(directory.path().join(name)).unwrap().mode() & 0o777;
        assert_eq!(mode("deep"), 0o700);
        for entry in std::fs::read_dir(directory.path().join("deep")).unwrap() {
            let name = entry.unwrap().file_name();
            assert_eq!(
                mode(&format!("deep/{}", name.display())),
                0o600,
                "{}",
                name.display()
            );
        }
        let planted = directory.path().join("planted.db");
        symlink(directory.path().join("deep/state.db"), &planted).unwrap();
        assert!(matches!(Sqlite::open(&planted), Err(StoreError::Private(_))));
        let all = std::fs::Permissions::from_mode(0o1777);
        std::fs::set_permissions(directory.path(), all).unwrap();
        let refused = Sqlite::open(&directory.path().join("new.db")).unwrap_err();
        assert!(refused.to_string().contains("others may write to"), "{refused}");
    }

    #[test]
    fn a_second_scheduler_is_kept_out() {
        let directory = tempfile::tempdir().unwrap();
        let _first = open(&directory);
        let second = Sqlite::open(&directory.path().join("deep/state.db")).unwrap_err();
        assert!(
            second.to_string().contains("is in use by another process"),
            "{second}"
        );
    }

    #[test]
    fn r5_what_is_no_store_of_ours_is_refused_with_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let garbage = directory.path().join("garbage");
        std::fs::write(&garbage, vec![b'x'; 10_000]).unwrap();
        assert!(
            Sqlite::open(&garbage)
                .unwrap_err()
                .to_string()
                .contains("garbage")
        );

        let newer = directory.path().join("newer");
        drop(Sqlite::open(&newer).unwrap());
        Connection::open(&newer)
            .unwrap()
            .pragma_update(None, "user_version", 99)
            .unwrap();
        assert!(matches!(
            Sqlite::open(&newer).unwrap_err(),
            StoreError::TooNew { found: 99, .. }
        ));

        let broken = directory.path().join("broken");
        let mut store = Sqlite::open(&broken).unwrap();
        store
            .connection
            .execute("INSERT INTO pod VALUES ('/x', '{\"pod\": 7}')", [])
            .unwrap();
        assert!(store.load().unwrap_err().to_string().contains("pod /x"));
    }
}
