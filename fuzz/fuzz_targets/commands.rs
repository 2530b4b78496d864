#![no_main]

libfuzzer_sys::fuzz_target!(
    // Arrow's readers panic on some messages, which is caught and answered: the hook
    // that ends the process at a panic is not for these. One that nobody catches ends
    // it all the same.
    init: std::panic::set_hook(Box::new(|_caught| {})),
    |data: &[u8]| jammi_db::fuzzing::commands(data)
);
