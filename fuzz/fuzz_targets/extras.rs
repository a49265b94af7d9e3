#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| podling::group::fuzz::extras(data));
