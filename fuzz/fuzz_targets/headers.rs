#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| jammi_db::fuzzing::headers(data));
