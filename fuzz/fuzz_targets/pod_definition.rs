#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| podling::pod::fuzz::definition(data));
