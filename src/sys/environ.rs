#![allow(unsafe_code)]
//! Our own environment block.

use std::{ffi::OsString, fs, ptr};

/// More than one thread runs: changing the environment now could race with a reader.
#[derive(Debug, thiserror::Error)]
#[error("the environment can only be changed while the process has a single thread")]
pub struct NotAlone;

/// Takes a secret out of our environment: no child inherits it, and its bytes are gone from
/// `/proc/self/environ`, which shows the block the kernel laid out at exec.
pub fn take_secret(name: &str) -> Result<Option<OsString>, NotAlone> {
    let Some(value) = std::env::var_os(name) else {
        return Ok(None);
    };
    let threads = fs::read_dir("/proc/self/task").map(Iterator::count).unwrap_or(0);
    if threads != 1 {
        return Err(NotAlone);
    }
    unsafe extern "C" {
        static environ: *const *mut libc::c_char;
    }
    // SAFETY: we are the only thread, so nobody changes or reads the block meanwhile. `environ` is null or an
    // array of valid C strings ended by null. Until the first `setenv` these strings are the writable memory the
    // kernel laid out; afterwards they are heap memory of the C library; both may be overwritten up to their
    // terminating NUL. Volatile, because nobody reads the bytes afterwards as far as the compiler can see.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            let text = std::ffi::CStr::from_ptr(*entry).to_bytes();
            let found = text
                .strip_prefix(name.as_bytes())
                .is_some_and(|rest| rest.starts_with(b"="));
            if found {
                let (start, length) = ((*entry).cast::<u8>(), text.len());
                for offset in name.len() + 1..length {
                    ptr::write_volatile(start.add(offset), b'0');
                }
            }
            entry = entry.add(1);
        }
        std::env::remove_var(name);
    }
    Ok(Some(value))
}
