//! What unpacking one layer may use. A layer is the work of a stranger: everything it can make large has a limit.

/// Limits for one layer. The defaults are above any image in use and below what hurts a node.
#[derive(Debug, Clone)]
pub struct Budget {
    /// Bytes of the uncompressed layer, and the apparent size of all its files together.
    pub bytes: u64,
    /// Names in the layer.
    pub entries: u64,
    /// Length of a name or link target.
    pub path: usize,
    /// Bytes of extended headers in front of one entry: long names, PAX records, sparse maps.
    pub header: u64,
    /// Extended attributes of one entry.
    pub xattrs: usize,
    /// Directories that have children but no entry of their own.
    pub implied_directories: usize,
    /// Uncompressed bytes for one compressed byte, counted once `ratio_free` bytes came out.
    pub ratio: u64,
    pub ratio_free: u64,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget {
            bytes: 8 << 30,
            entries: 2_000_000,
            path: 4096,
            header: 1 << 20,
            xattrs: 256,
            implied_directories: 50_000,
            // gzip cannot do better than 1032:1; a megabyte of it is legal, a gigabyte is a bomb.
            ratio: 250,
            ratio_free: 1 << 30,
        }
    }
}

/// Which limit a layer went over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OverBudget {
    #[error("it unpacks to more than {0} bytes")]
    Bytes(u64),
    #[error("it has more than {0} entries")]
    Entries(u64),
    #[error("it has a name or link target longer than {0} bytes")]
    Path(usize),
    #[error("it has more than {0} bytes of extended headers in front of one entry")]
    Header(u64),
    #[error("an entry has more than {0} extended attributes")]
    Xattrs(usize),
    #[error("it has more than {0} directories without an entry of their own")]
    ImpliedDirectories(usize),
    #[error("it unpacks to more than {0} times its size, like a decompression bomb")]
    Ratio(u64),
}
