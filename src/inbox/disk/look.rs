//! What `payrelay doctor` sees of a data directory: looks, and neither makes, opens nor locks
//! anything, so that a node may have it meanwhile.

use super::open::{FILE_NAME, OpenError};
use rustix::fs::{Access, access, statfs, statvfs};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What it is like.
#[derive(Debug)]
pub(crate) struct Look {
    /// The size of `inbox.redb`, if there is one.
    pub(crate) file_bytes: Option<u64>,
    pub(crate) free_bytes: u64,
    pub(crate) file_system: FileSystem,
}

/// What it lies on, as far as that says how long it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileSystem {
    /// tmpfs, ramfs.
    Memory,
    /// What a container sees as its own.
    Overlay,
    /// Another machine's.
    Network,
    Other,
}

/// What a file of redb's begins with.
const MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";

/// Looks at it.
///
/// # Errors
///
/// A node could not use it, for the same reasons that it would give.
pub(crate) fn look(dir: &Path) -> Result<Look, OpenError> {
    let there = nearest(dir);
    if !there.is_dir() {
        return Err(OpenError::NotADirectory(there));
    }
    let all = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    may(&there, all)?;
    let path = dir.join(FILE_NAME);
    let file_bytes = if path.exists() { Some(look_at_file(&path)?) } else { None };
    let denied = |cause: rustix::io::Errno| OpenError::Denied { path: there.clone(), cause: cause.into() };
    let disk = statvfs(&there).map_err(denied)?;
    let kind = statfs(&there).map_err(denied)?.f_type;
    Ok(Look { file_bytes, free_bytes: disk.f_bavail * disk.f_frsize, file_system: FileSystem::of(kind) })
}

/// The directory, or what is there of the way to it.
fn nearest(dir: &Path) -> PathBuf {
    // A name alone is below the present directory.
    let there = dir.ancestors().find(|path| path.exists());
    there.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

fn may(path: &Path, what: Access) -> Result<(), OpenError> {
    access(path, what).map_err(|cause| OpenError::Denied { path: path.to_owned(), cause: cause.into() })
}

fn look_at_file(path: &Path) -> Result<u64, OpenError> {
    let denied = |cause: io::Error| OpenError::Denied { path: path.to_owned(), cause };
    may(path, Access::READ_OK | Access::WRITE_OK)?;
    let file = File::open(path).map_err(denied)?;
    let bytes = file.metadata().map_err(denied)?.len();
    let mut begin = Vec::new();
    file.take(MAGIC.len() as u64).read_to_end(&mut begin).map_err(denied)?;
    // One that was never written is made anew.
    if !begin.is_empty() && begin != MAGIC {
        return Err(OpenError::Foreign { path: path.to_owned(), format: None });
    }
    Ok(bytes)
}

impl FileSystem {
    /// From the number that `statfs` tells; see `linux/magic.h`.
    fn of(number: i64) -> FileSystem {
        match number & 0xffff_ffff {
            0x0102_1994 | 0x8584_58f6 => FileSystem::Memory,
            0x794c_7630 => FileSystem::Overlay,
            // NFS, SMB1, CIFS, SMB2, FUSE's sshfs and others, Ceph, 9p.
            0x6969 | 0x517b | 0xff53_4d42 | 0xfe53_4d42 | 0x6573_5546 | 0x00c3_6400 | 0x0102_1997 => {
                FileSystem::Network
            }
            _ => FileSystem::Other,
        }
    }
}
