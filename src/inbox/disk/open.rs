//! Opening `inbox.redb`: the directory, the file, its format, and what to say where one is wrong.

use super::tables::{self, FORMAT, META};
use parking_lot::Mutex;
use redb::backends::FileBackend;
use redb::{Database, DatabaseError, StorageError};
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{error, fmt, io};

/// What redb may keep of the file in memory; the rest is the system's page cache.
const CACHE_BYTES: usize = 64 << 20;
/// The file within the directory.
pub(super) const FILE_NAME: &str = "inbox.redb";
/// How often a long check of the file says how far it is.
const PROGRESS: Duration = Duration::from_secs(2);

/// Why the inboxes could not be opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// The path exists and is something else.
    NotADirectory(PathBuf),
    /// Directory or file cannot be made, read or written.
    Denied { path: PathBuf, cause: io::Error },
    /// Another process has the file open.
    InUse(PathBuf),
    /// The file is none of redb's, or its checksums do not fit.
    Damaged { path: PathBuf, cause: Box<dyn error::Error + Send + Sync> },
    /// A sound file, but of another program or of another version; what it says of itself.
    Foreign { path: PathBuf, format: Option<u64> },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::NotADirectory(dir) => {
                write!(f, "{} is not a directory; name another with --data-dir", dir.display())
            }
            OpenError::Denied { path, cause } => {
                let path = path.display();
                write!(f, "cannot use {path}: {cause}; let this user write there, or name another with --data-dir")
            }
            OpenError::InUse(file) => {
                let file = file.display();
                write!(f, "{file} is in use by another payrelay; stop that one, or give each its own --data-dir")
            }
            OpenError::Damaged { path, cause } => {
                let path = path.display();
                write!(f, "{path} is damaged ({cause}); put back a copy of it, or move it away and begin empty")
            }
            OpenError::Foreign { path, format: Some(format) } => {
                let path = path.display();
                write!(f, "{path} has format {format}, this payrelay knows {FORMAT}; run the payrelay that wrote it")
            }
            OpenError::Foreign { path, format: None } => {
                write!(f, "{} is another program's; name another directory with --data-dir", path.display())
            }
        }
    }
}

impl error::Error for OpenError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            OpenError::Denied { cause, .. } => Some(cause),
            OpenError::Damaged { cause, .. } => Some(cause.as_ref()),
            OpenError::NotADirectory(_) | OpenError::InUse(_) | OpenError::Foreign { .. } => None,
        }
    }
}

/// The file, and whether the process before this one closed it in order.
pub(super) struct Opened {
    pub(super) database: Database,
    pub(super) in_order: bool,
}

/// Opens the file under a directory; makes both where they are missing.
pub(super) fn open(dir: &Path) -> Result<Opened, OpenError> {
    if dir.exists() && !dir.is_dir() {
        return Err(OpenError::NotADirectory(dir.to_owned()));
    }
    let denied = |path: &Path, cause| OpenError::Denied { path: path.to_owned(), cause };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|cause| denied(dir, cause))?;
    let path = dir.join(FILE_NAME);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&path).map_err(|cause| denied(&path, cause))?;
    // redb takes a file that was damaged by others at its word, and may panic.
    let opened = catch_unwind(AssertUnwindSafe(|| open_file(&path, file)));
    let panicked = |_| OpenError::Damaged { path: path.clone(), cause: "it makes no sense".into() };
    let opened = opened.map_err(panicked).and_then(|opened| opened)?;
    // A file is durable only once its name is.
    for dir in [Some(dir), dir.parent()].into_iter().flatten().filter(|dir| !dir.as_os_str().is_empty()) {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(|cause| denied(dir, cause))?;
    }
    Ok(opened)
}

fn open_file(path: &Path, file: File) -> Result<Opened, OpenError> {
    let backend = FileBackend::new(file).map_err(|error| wrong(path, error))?;
    let mut builder = Database::builder();
    let shown = path.display().to_string();
    let (opened, said) = (Instant::now(), Mutex::new(Duration::ZERO));
    let repaired = Arc::new(AtomicBool::new(false));
    let repairs = Arc::clone(&repaired);
    builder.set_cache_size(CACHE_BYTES).set_repair_callback(move |repair| {
        repairs.store(true, Ordering::Relaxed);
        // The first word at once, the others only where it takes long.
        let mut next = said.lock();
        if opened.elapsed() >= *next {
            log::info!("{shown}: not closed in order, checking it: {:.0} %", repair.progress() * 100.0);
            *next = opened.elapsed() + PROGRESS;
        }
    });
    let database = builder.create_with_backend(backend).map_err(|error| wrong(path, error))?;
    prepare(path, &database)?;
    Ok(Opened { database, in_order: !repaired.load(Ordering::Relaxed) })
}

/// Checks whose file it is; gives a new one its tables.
fn prepare(path: &Path, database: &Database) -> Result<(), OpenError> {
    let damaged = |error: redb::Error| OpenError::Damaged { path: path.to_owned(), cause: error.into() };
    let foreign = |format| OpenError::Foreign { path: path.to_owned(), format };
    let transaction = database.begin_write().map_err(|error| damaged(error.into()))?;
    let empty = transaction.list_tables().map_err(|error| damaged(error.into()))?.next().is_none();
    let mut meta = transaction.open_table(META).map_err(|_| foreign(None))?;
    if empty {
        meta.insert("format", FORMAT).map_err(|error| damaged(error.into()))?;
    }
    let found = redb::ReadableTable::get(&meta, "format").map_err(|error| damaged(error.into()))?;
    let format = found.map(|format| format.value());
    if format != Some(FORMAT) {
        return Err(foreign(format));
    }
    drop(meta);
    tables::create(&transaction).map_err(|error| damaged(error.into()))?;
    transaction.commit().map_err(|error| damaged(error.into()))
}

fn wrong(path: &Path, error: DatabaseError) -> OpenError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => OpenError::InUse(path),
        DatabaseError::Storage(StorageError::Io(cause)) if cause.kind() != io::ErrorKind::InvalidData => {
            OpenError::Denied { path, cause }
        }
        error => OpenError::Damaged { path, cause: error.into() },
    }
}
