//! Arguments and results survive callbacks that use all that a function may use.

use crate::traced;
use gracepoint::FunctionOps;
use std::arch::x86_64::{_mm_set1_ps, _mm256_set_ps, _mm512_set1_ps};
use std::hint::black_box;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

static HITS: AtomicU64 = AtomicU64::new(0);

/// Uses integer and vector registers, the widest that the C library has a use for, and the error number.
fn wreck(_: &gracepoint::FunctionCall) {
    let mut block = black_box([0x5a_u8; 4096]);
    for len in [40, 100, 300, 4000] {
        block[..black_box(len)].fill(black_box(0xa5));
        let other = block;
        block[..black_box(len)].copy_from_slice(&other[96..][..len]);
    }
    let mut floats = [1.5_f64; 24];
    for i in 0..24 {
        floats[i] = black_box(floats[i] * (i as f64) + floats[(i * 7) % 24]);
    }
    black_box((block, floats));
    // SAFETY: fails, and sets the error number.
    unsafe { libc::close(-1) };
    HITS.fetch_add(1, Relaxed);
}

/// Values that the compiler does not know, so that they are passed as they are.
fn integers() -> [u64; 2] {
    let [a, b, c, d, e, f, g, h] = black_box([1, 2, 3, 4, 5, 6, 7, 8]);
    traced::integers(a, b, c, d, e, f, g, h)
}

fn floats() -> (f64, f64) {
    let [a, b, c, d, e, f, g, h] = black_box([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    traced::floats(a, b, c, d, e, f, g, h)
}

fn once() {
    assert_eq!(black_box(integers()), [50, 404]);
    let floats = black_box(floats());
    assert_eq!(floats, (50.0, 404.0));
    let a = 0x1234_5678_9abc_def0_0fed_cba9_8765_4321_u128;
    assert_eq!(
        black_box(traced::wide(black_box(a), black_box(3), black_box(7.0))),
        a.wrapping_mul(3) + 7
    );
    assert_eq!(black_box(traced::three(black_box(5))), (6, 7, 5.0));
    // SAFETY: every x86-64 processor has these; four floats are sixteen bytes.
    let narrow = unsafe {
        let sum = traced::vectors::narrow(black_box(_mm_set1_ps(1.0)), black_box(_mm_set1_ps(2.0)));
        std::mem::transmute::<std::arch::x86_64::__m128, [f32; 4]>(sum)
    };
    assert_eq!(narrow, [3.0; 4]);
    if is_x86_feature_detected!("avx") {
        double();
    }
    if is_x86_feature_detected!("avx512f") {
        fourfold();
    }
}

#[target_feature(enable = "avx")]
fn double_with_avx() {
    let a = _mm256_set_ps(8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0);
    let sum = traced::vectors::double(black_box(a), black_box(a));
    // SAFETY: eight floats are thirty-two bytes.
    let sum = unsafe { std::mem::transmute::<std::arch::x86_64::__m256, [f32; 8]>(sum) };
    assert_eq!(sum, [2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0]);
}

fn double() {
    // SAFETY: the processor has it.
    unsafe { double_with_avx() };
}

#[target_feature(enable = "avx512f")]
fn fourfold_with_avx512() {
    let sum =
        traced::vectors::fourfold(black_box(_mm512_set1_ps(1.0)), black_box(_mm512_set1_ps(2.5)));
    // SAFETY: sixteen floats are sixty-four bytes.
    let sum = unsafe { std::mem::transmute::<std::arch::x86_64::__m512, [f32; 16]>(sum) };
    assert_eq!(sum, [3.5; 16]);
}

fn fourfold() {
    // SAFETY: the processor has it.
    unsafe { fourfold_with_avx512() };
}

pub(crate) fn run() {
    once();
    let ops = FunctionOps::on(&traced::all().find().expect("found before"));
    let ops = ops.on_entry(wreck).on_exit(wreck).register().expect("registered");
    for _ in 0..100 {
        // SAFETY: the calling thread's own word.
        unsafe { *libc::__errno_location() = 4242 };
        once();
        // SAFETY: as above.
        assert_eq!(unsafe { *libc::__errno_location() }, 4242);
    }
    let hits = HITS.load(Relaxed);
    assert!(hits >= 100 * 2 * 5, "{hits}");
    ops.unregister();
    once();
    assert_eq!(HITS.load(Relaxed), hits);
    println!("all registers are kept");
}
