//! A `libcuda.so` over the simulated device: the calls of the CUDA driver that kiln makes, and no other. With it in the
//! library path a process drives the simulator through cudarc as it would drive a GPU.
//!
//! As on a GPU a kernel that fails is noticed at the next synchronisation, and every call after that fails as well. What the
//! simulator found goes to standard error. `STAND_IN_CHECKS=1` has every access checked, `STAND_IN_DEVICES=0` leaves the
//! driver without a device, `STAND_IN_CUDA=11080` makes it CUDA 11.8.
//!
//! SAFETY, of every call here: what a pointer refers to is what the CUDA driver's interface says, since cudarc keeps to it.
#![allow(
    non_snake_case,
    missing_docs,
    clippy::missing_safety_doc,
    clippy::undocumented_unsafe_blocks,
    clippy::print_stderr
)]

use kiln::device::driver::Function;
use kiln::device::ptx::{Module, Names, Type};
use kiln::device::sim::Options;
use kiln::device::{Arg, Driver, Grid, Ptr, Sim};
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::slice::{from_raw_parts, from_raw_parts_mut};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

const INVALID_VALUE: c_int = 1;
const OUT_OF_MEMORY: c_int = 2;
const NO_DEVICE: c_int = 100;
const INVALID_DEVICE: c_int = 101;
const INVALID_PTX: c_int = 218;
const NOT_FOUND: c_int = 500;
const ILLEGAL_ADDRESS: c_int = 700;

/// Bytes of memory of the device.
const MEMORY: usize = 1 << 30;
/// Shared memory that a block can have if its function asks for it, and without asking.
const SHARED: usize = 163 << 10;
const PLAIN_SHARED: usize = 48 << 10;

/// What a kernel left that failed.
static STICKY: AtomicI32 = AtomicI32::new(0);

fn sim() -> &'static Sim {
    static SIM: OnceLock<Sim> = OnceLock::new();
    SIM.get_or_init(|| {
        let check = std::env::var_os("STAND_IN_CHECKS").is_some();
        Sim::new(Options { memory: MEMORY, shared: SHARED, ..Options::new(check).expect("a level of this processor") })
    })
}

fn number(name: &str, default: c_int) -> c_int {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// 0, or what an earlier kernel left.
fn done() -> c_int {
    STICKY.load(SeqCst)
}

/// `code` where `result` is an error, which is told.
fn tell<T>(result: kiln::error::Result<T>, code: c_int) -> c_int {
    match result {
        Ok(_) => done(),
        Err(error) => {
            eprintln!("stand-in libcuda: {error}");
            code
        }
    }
}

struct Kernel {
    function: Function,
    shared: usize,
}

#[unsafe(no_mangle)]
pub extern "C" fn cuInit(_flags: c_uint) -> c_int {
    if number("STAND_IN_DEVICES", 1) == 0 { NO_DEVICE } else { 0 }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> c_int {
    unsafe { *version = number("STAND_IN_CUDA", 12040) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> c_int {
    unsafe { *count = 1 };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> c_int {
    unsafe { *device = 0 };
    if ordinal == 0 { 0 } else { INVALID_DEVICE }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, _device: c_int) -> c_int {
    unsafe { *bytes = MEMORY };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, len: c_int, _device: c_int) -> c_int {
    let text = c"simulated GPU".to_bytes_with_nul();
    for (i, byte) in text.iter().take(len as usize).enumerate() {
        unsafe { *name.add(i) = *byte as c_char };
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, _device: c_int) -> c_int {
    let [major, minor, shared_optin] = [75, 76, 97];
    unsafe {
        *value = match attribute {
            a if a == major => number("STAND_IN_CAPABILITY", 8),
            a if a == minor => 0,
            a if a == shared_optin => SHARED as c_int,
            _ => return INVALID_VALUE,
        };
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut *mut c_void, _device: c_int) -> c_int {
    unsafe { *context = std::ptr::dangling_mut() };
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRelease_v2(_device: c_int) -> c_int {
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(_context: *mut c_void) -> c_int {
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(stream: *mut *mut c_void, _flags: c_uint) -> c_int {
    unsafe { *stream = std::ptr::dangling_mut() };
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamDestroy_v2(_stream: *mut c_void) -> c_int {
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(_stream: *mut c_void) -> c_int {
    done()
}

/// The stand-in's graphs are the recordings of the simulated device, by their number and 1.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamBeginCapture_v2(_stream: *mut c_void, _mode: c_int) -> c_int {
    tell(sim().record(), INVALID_VALUE)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamEndCapture(_stream: *mut c_void, graph: *mut *mut c_void) -> c_int {
    let recorded = sim().recorded();
    unsafe { *graph = std::ptr::without_provenance_mut(recorded.as_ref().map_or(0, |number| number + 1)) };
    tell(recorded, INVALID_VALUE)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphInstantiateWithFlags(runs: *mut *mut c_void, graph: *mut c_void, _flags: u64) -> c_int {
    unsafe { *runs = graph };
    done()
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphDestroy(_graph: *mut c_void) -> c_int {
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphExecDestroy(_graph: *mut c_void) -> c_int {
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphLaunch(graph: *mut c_void, _stream: *mut c_void) -> c_int {
    if done() != 0 {
        return done();
    }
    ran(sim().replay(graph.addr() - 1))
}

/// Its events are the simulated device's marks, by their number and 1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventCreate(event: *mut *mut c_void, _flags: c_uint) -> c_int {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    unsafe { *event = std::ptr::without_provenance_mut(NEXT.fetch_add(1, SeqCst)) };
    done()
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecord(event: *mut c_void, _stream: *mut c_void) -> c_int {
    tell(sim().mark(event.addr() - 1), INVALID_VALUE)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime(ms: *mut f32, first: *mut c_void, second: *mut c_void) -> c_int {
    let seconds = sim().between(first.addr() - 1, second.addr() - 1);
    unsafe { *ms = 1e3 * seconds.as_ref().map_or(0.0, |seconds| *seconds as f32) };
    tell(seconds, INVALID_VALUE)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventDestroy_v2(_event: *mut c_void) -> c_int {
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostAlloc(ptr: *mut *mut c_void, bytes: usize, _flags: c_uint) -> c_int {
    unsafe { *ptr = Box::leak(vec![0u64; bytes.div_ceil(8)].into_boxed_slice()).as_mut_ptr().cast() };
    done()
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFreeHost(_ptr: *mut c_void) -> c_int {
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> c_int {
    unsafe { (*free, *total) = (MEMORY - sim().used() as usize, MEMORY) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(ptr: *mut u64, bytes: usize) -> c_int {
    match sim().alloc(bytes) {
        Ok(Ptr(address)) => {
            unsafe { *ptr = address };
            done()
        }
        Err(_) => OUT_OF_MEMORY,
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(ptr: u64) -> c_int {
    tell(sim().free(Ptr(ptr)), INVALID_VALUE)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: *const u8, bytes: usize, _stream: *mut c_void) -> c_int {
    tell(sim().upload(Ptr(to), unsafe { from_raw_parts(from, bytes) }), INVALID_VALUE)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(to: *mut u8, from: u64, bytes: usize, _stream: *mut c_void) -> c_int {
    tell(sim().download(unsafe { from_raw_parts_mut(to, bytes) }, Ptr(from)), INVALID_VALUE)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD32Async(to: u64, word: c_uint, words: usize, _stream: *mut c_void) -> c_int {
    tell(sim().fill(Ptr(to), word, words), INVALID_VALUE)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadDataEx(
    module: *mut *mut c_void,
    image: *const c_char,
    options: c_uint,
    names: *const c_int,
    values: *const *mut c_void,
) -> c_int {
    let text = unsafe { CStr::from_ptr(image) }.to_str().unwrap_or("");
    match Module::new("ptx input", text, &Names::default()) {
        Ok(read) => {
            unsafe { *module = Box::into_raw(Box::new(Arc::new(read))).cast() };
            done()
        }
        Err(error) => {
            let [log, log_bytes] = [5, 6];
            let value = |wanted: c_int| unsafe {
                (0..options as usize).find(|i| *names.add(*i) == wanted).map(|i| *values.add(i))
            };
            if let (Some(log), Some(bytes)) = (value(log), value(log_bytes)) {
                // As the driver's assembler says it: file, line; what.
                let said = error.to_string().replacen("ptx input:", "ptxas ptx input, line ", 1);
                let said: Vec<u8> = said.bytes().take((bytes as usize).saturating_sub(1)).chain([0]).collect();
                unsafe { std::ptr::copy_nonoverlapping(said.as_ptr(), log.cast(), said.len()) };
            }
            INVALID_PTX
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleUnload(module: *mut c_void) -> c_int {
    drop(unsafe { Box::from_raw(module.cast::<Arc<Module>>()) });
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(
    function: *mut *mut c_void,
    module: *mut c_void,
    name: *const c_char,
) -> c_int {
    let module = unsafe { &*module.cast::<Arc<Module>>() };
    match sim().function(module, unsafe { CStr::from_ptr(name) }.to_str().unwrap_or("")) {
        Ok(found) => {
            // Kept for the process's life, as the driver keeps it for the module's.
            unsafe { *function = Box::into_raw(Box::new(Kernel { function: found, shared: PLAIN_SHARED })).cast() };
            done()
        }
        Err(_) => NOT_FOUND,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncSetAttribute(function: *mut c_void, attribute: c_int, value: c_int) -> c_int {
    let max_dynamic_shared = 8;
    if attribute != max_dynamic_shared || value as usize > SHARED {
        return INVALID_VALUE;
    }
    unsafe { (*function.cast::<Kernel>()).shared = value as usize };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernel(
    function: *mut c_void,
    x: c_uint,
    y: c_uint,
    z: c_uint,
    a: c_uint,
    b: c_uint,
    c: c_uint,
    shared: c_uint,
    _stream: *mut c_void,
    params: *const *const c_void,
    _extra: *const *mut c_void,
) -> c_int {
    if done() != 0 {
        return done();
    }
    let Kernel { function, shared: allowed } = unsafe { &*function.cast::<Kernel>() };
    if shared as usize > *allowed {
        return INVALID_VALUE;
    }
    let arg = |(i, ty): (usize, Type)| unsafe {
        let value = *params.add(i);
        match ty {
            Type::F32 => Arg::F32(*value.cast()),
            ty if ty.bits() == 64 => Arg::U64(*value.cast()),
            ty if ty.signed() => Arg::I32(*value.cast()),
            _ => Arg::U32(*value.cast()),
        }
    };
    let args: Vec<Arg> = function.kernel().params.iter().map(|param| param.ty).enumerate().map(arg).collect();
    let grid = Grid { blocks: [x, y, z], threads: [a, b, c], shared: shared as usize };
    ran(sim().launch(function, grid, &args))
}

/// What a launch says at once: a kernel that failed is told of later.
fn ran(result: kiln::error::Result<()>) -> c_int {
    if let Err(error) = result {
        eprintln!("stand-in libcuda: {error}");
        if sim().fault().is_none() {
            return INVALID_VALUE;
        }
        STICKY.store(ILLEGAL_ADDRESS, SeqCst);
    }
    0
}

fn name_of(error: c_int) -> &'static CStr {
    match error {
        INVALID_VALUE => c"invalid argument",
        OUT_OF_MEMORY => c"out of memory",
        NO_DEVICE => c"no CUDA-capable device is detected",
        INVALID_PTX => c"a PTX JIT compilation failed",
        NOT_FOUND => c"named symbol not found",
        ILLEGAL_ADDRESS => c"an illegal memory access was encountered",
        _ => c"unknown error",
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(error: c_int, text: *mut *const c_char) -> c_int {
    unsafe { *text = name_of(error).as_ptr() };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(error: c_int, text: *mut *const c_char) -> c_int {
    unsafe { cuGetErrorString(error, text) }
}
