#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| podling::container::fuzz::seccomp_profile(data));
