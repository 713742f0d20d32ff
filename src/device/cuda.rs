//! A GPU, through the CUDA driver as cudarc opens it.
//!
//! The driver's library is looked for when the program runs: without one, everything else works. One context, one stream;
//! every call names the context first, so that any thread may make it. A kernel that fails leaves a driver that fails
//! ever after: the error names the launches before it, since the driver does not say which one it was.

use super::driver::{Arg, Driver, Function, Grid, Ptr, alone, check_grid, find, parameters};
use super::nccl::Nccl;
use super::ptx::{Module, Problem};
use crate::error::{Error, Result};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute, CUresult as Code};
use std::ffi::{CString, c_uint, c_void};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The oldest CUDA version whose driver has all calls that are made.
const OLDEST: (i32, i32) = (12, 0);
/// The oldest compute capability that the kernels are written for.
const OLDEST_GPU: (i32, i32) = (8, 0);
/// Bytes of shared memory that a kernel gets without asking.
const PLAIN_SHARED: usize = 48 << 10;
/// Launches that an error names.
const RECENT: usize = 4;
/// Bytes of page-locked memory, from which uploads go on while the host does other things.
const STAGING: usize = 1 << 20;
/// Bytes for what the driver's assembler says.
const LOG: usize = 16 << 10;

/// A GPU of this machine.
pub struct Cuda {
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    name: String,
    capability: (i32, i32),
    version: (i32, i32),
    memory: usize,
    /// Shared memory that a block can have at most.
    shared: usize,
    state: Mutex<State>,
    /// The GPUs that it adds up with.
    others: Mutex<Option<Nccl>>,
}

#[derive(Default)]
struct State {
    modules: Vec<(Arc<Module>, sys::CUmodule)>,
    functions: Vec<Loaded>,
    launches: usize,
    /// The functions of the last launches, in a ring.
    recent: [usize; RECENT],
    graphs: Vec<sys::CUgraphExec>,
    marks: Vec<sys::CUevent>,
    staging: Staging,
}

/// Page-locked memory. What lies in it is being uploaded until the next wait.
struct Staging {
    ptr: *mut u8,
    used: usize,
}

impl Default for Staging {
    fn default() -> Staging {
        Staging { ptr: std::ptr::null_mut(), used: STAGING }
    }
}

struct Loaded {
    module: Arc<Module>,
    entry: usize,
    handle: sys::CUfunction,
    /// Bytes of shared memory that it may use now, beside those that it declares.
    shared: usize,
}

// SAFETY: the handles are the driver's, which takes them from any thread; what changes is behind a lock.
unsafe impl Send for Cuda {}
// SAFETY: as above.
unsafe impl Sync for Cuda {}

/// What the driver calls an error, in words.
fn words(error: DriverError) -> String {
    let text = error.error_string().ok().map(|text| text.to_string_lossy().into_owned());
    let name = format!("{:?}", error.0);
    text.map_or(name.clone(), |text| format!("{name}, {text}"))
}

impl Cuda {
    /// Opens the first GPU.
    ///
    /// # Errors
    /// As of [`nth`](Cuda::nth).
    pub fn new() -> Result<Cuda> {
        Cuda::nth(0)
    }

    /// Opens GPU number `n` of this machine, from 0.
    ///
    /// # Errors
    /// There is no driver, or none that is new enough; there is no such GPU, or none that the kernels run on.
    pub fn nth(n: usize) -> Result<Cuda> {
        let found = super::probe::cuda().map_err(|why| {
            Error::device(format!("no GPU can be used: {why}"), "train on the CPU (--device cpu), or see kiln doctor")
        })?;
        let (major, minor) = found.version;
        if found.version < OLDEST {
            let problem = format!("the driver supports CUDA {major}.{minor}; {}.{} is needed", OLDEST.0, OLDEST.1);
            return Err(Error::device(problem, "install a newer NVIDIA driver, or use --device cpu"));
        }
        let Some(gpu) = found.gpus.get(n) else {
            let problem = match found.gpus.len() {
                0 => "the driver finds no GPU".to_owned(),
                all => format!("there is no GPU {n}: the driver finds {all}"),
            };
            return Err(Error::device(problem, "see nvidia-smi, or use --device cpu"));
        };
        if gpu.capability < OLDEST_GPU {
            let (major, minor) = gpu.capability;
            let problem = format!("{} is of compute capability {major}.{minor}; 8.0 is needed", gpu.name);
            return Err(Error::device(problem, "the kernels need an Ampere GPU or a newer one; use --device cpu"));
        }
        let failed = |error| Error::device(format!("{} does not open: {}", gpu.name, words(error)), "see nvidia-smi");
        let device = result::device::get(n as i32).map_err(failed)?;
        let most = Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        // SAFETY: `device` comes from `get`.
        let shared = unsafe { result::device::get_attribute(device, most) }.map_err(failed)?;
        // SAFETY: as above; the context is released when this is dropped.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(failed)?;
        // SAFETY: the context was just retained.
        unsafe { result::ctx::set_current(context) }.map_err(failed)?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking).map_err(failed)?;
        // SAFETY: the context is this thread's.
        let ptr = unsafe { result::malloc_host(STAGING, 0) }.map_err(failed)?.cast();
        Ok(Cuda {
            device,
            context,
            stream,
            name: gpu.name.clone(),
            capability: gpu.capability,
            version: found.version,
            memory: gpu.memory as usize,
            shared: shared as usize,
            state: Mutex::new(State { staging: Staging { ptr, used: 0 }, ..State::default() }),
            others: Mutex::new(None),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the context this thread's.
    fn enter(&self) -> Result<()> {
        // SAFETY: the context is retained as long as this lives.
        unsafe { result::ctx::set_current(self.context) }.map_err(|error| self.failed("entering the context", error))
    }

    /// An error of the driver while `what` was done, with the launches before it.
    fn failed(&self, what: &str, error: DriverError) -> Error {
        let state = self.lock();
        let last = state.launches.min(RECENT);
        let names: Vec<String> = (state.launches - last..state.launches)
            .map(|i| {
                let loaded = &state.functions[state.recent[i % RECENT]];
                format!("{} ({})", loaded.module.entries[loaded.entry].name, loaded.module.source.name)
            })
            .collect();
        let after = if names.is_empty() { String::new() } else { format!("; launched last: {}", names.join(", ")) };
        let hint = "the same with --device sim names the kernel's line";
        Error::device(format!("{}: {what}: {}{after}", self.name, words(error)), hint)
    }

    /// Has the driver assemble a module.
    fn load(&self, module: &Module) -> Result<sys::CUmodule> {
        let text = CString::new(module.source.expanded.text.as_str())
            .map_err(|_| Error::device(format!("{}: a 0 in the text", module.source.name), "remove it"))?;
        let mut log = vec![0u8; LOG];
        let mut options = [
            sys::CUjit_option_enum::CU_JIT_ERROR_LOG_BUFFER,
            sys::CUjit_option_enum::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
        ];
        let mut values = [log.as_mut_ptr().cast::<c_void>(), LOG as *mut c_void];
        let mut handle = std::ptr::null_mut();
        // SAFETY: the text ends with a 0; two options with two values, of which the first is as long as the second says.
        let code = unsafe {
            sys::cuModuleLoadDataEx(&mut handle, text.as_ptr().cast(), 2, options.as_mut_ptr(), values.as_mut_ptr())
        };
        let Err(error) = code.result() else { return Ok(handle) };
        if error.0 == Code::CUDA_ERROR_UNSUPPORTED_PTX_VERSION {
            let ((major, minor), (a, b)) = (module.version, self.version);
            let problem =
                format!("{}: the driver's CUDA {a}.{b} does not know PTX {major}.{minor}", module.source.name);
            return Err(Error::device(problem, "install a newer NVIDIA driver"));
        }
        let end = log.iter().position(|byte| *byte == 0).unwrap_or(LOG);
        let said = String::from_utf8_lossy(&log[..end]);
        // The assembler numbers the lines of the expanded text.
        let line =
            said.split("line ").nth(1).and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
        let place = module.source.expanded.place(line.unwrap_or(0), 0);
        let message = format!("the driver does not take it: {}\n{}", words(error), said.trim());
        Err(module.source.error(&Problem { line: place.line, calls: place.calls, message, ..Problem::default() }))
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        drop(self.others.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Nothing is left to be done about what fails here.
        // SAFETY: all handles were made here, and are used no more; the stream is idle or lost.
        unsafe {
            let _ = result::ctx::set_current(self.context);
            let _ = result::stream::synchronize(self.stream);
            for graph in state.graphs.drain(..) {
                let _ = result::graph::exec_destroy(graph);
            }
            for mark in state.marks.drain(..) {
                let _ = result::event::destroy(mark);
            }
            if !state.staging.ptr.is_null() {
                let _ = result::free_host(state.staging.ptr.cast());
            }
            for (_, module) in state.modules.drain(..) {
                let _ = result::module::unload(module);
            }
            let _ = result::stream::destroy(self.stream);
            let _ = result::primary_ctx::release(self.device);
        }
    }
}

impl Driver for Cuda {
    fn describe(&self) -> String {
        let ((major, minor), (a, b)) = (self.capability, self.version);
        format!("{}, {} GiB, compute capability {major}.{minor}, CUDA {a}.{b}", self.name, self.memory >> 30)
    }

    fn memory(&self) -> usize {
        self.memory
    }

    fn meeting(&self, _: usize) -> Result<Vec<u8>> {
        self.enter()?;
        Nccl::meeting()
    }

    fn join(&self, meeting: &[u8], rank: usize, size: usize) -> Result<()> {
        self.enter()?;
        let joined = Nccl::join(meeting, rank, size)?;
        *self.others.lock().unwrap_or_else(PoisonError::into_inner) = Some(joined);
        Ok(())
    }

    fn all_reduce(&self, at: Ptr, len: usize) -> Result<()> {
        self.enter()?;
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let joined = others.as_ref().ok_or_else(|| alone(&self.describe()))?;
        // SAFETY: callers keep to their allocations; the stream is this GPU's.
        unsafe { joined.all_reduce(at, len, self.stream) }
    }

    fn alloc(&self, bytes: usize) -> Result<Ptr> {
        self.enter()?;
        // SAFETY: the address is used within its bytes only: callers keep to their allocations.
        unsafe { result::malloc_sync(bytes.max(1)) }.map(Ptr).map_err(|error| match error.0 {
            Code::CUDA_ERROR_OUT_OF_MEMORY => {
                let (free, total) = result::mem_get_info().unwrap_or((0, self.memory));
                let problem = format!("{}: {bytes} bytes do not fit: {free} of {total} are free", self.name);
                Error::device(problem, "use a smaller batch, or train.recompute = true")
            }
            _ => self.failed("allocating memory", error),
        })
    }

    fn free(&self, ptr: Ptr) -> Result<()> {
        self.enter()?;
        // SAFETY: the driver refuses what it did not allocate.
        unsafe { result::free_sync(ptr.0) }.map_err(|error| self.failed("freeing memory", error))
    }

    fn upload(&self, to: Ptr, from: &[u8]) -> Result<()> {
        self.enter()?;
        let copy = |from: &[u8]| {
            // SAFETY: pageable memory is read before the call returns, and what is staged stays as it is until the next wait;
            // the driver refuses addresses outside of an allocation.
            unsafe { result::memcpy_htod_async(to.0, from, self.stream) }
                .map_err(|error| self.failed("an upload", error))
        };
        let staged = {
            let Staging { ptr, used } = &mut self.lock().staging;
            if from.len() > STAGING - *used {
                None
            } else {
                // SAFETY: the memory has room for it behind what is used, and nobody else writes there.
                let staged = unsafe {
                    ptr.add(*used).copy_from_nonoverlapping(from.as_ptr(), from.len());
                    std::slice::from_raw_parts(ptr.add(*used), from.len())
                };
                *used += from.len();
                Some(staged)
            }
        };
        copy(staged.unwrap_or(from))
    }

    fn download(&self, to: &mut [u8], from: Ptr) -> Result<()> {
        self.enter()?;
        // SAFETY: `to` is there until the copy is waited for, in the next call.
        unsafe { result::memcpy_dtoh_async(to, from.0, self.stream) }
            .map_err(|error| self.failed("a download", error))?;
        self.sync()
    }

    fn fill(&self, to: Ptr, word: u32, words: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: the driver refuses addresses outside of an allocation.
        unsafe { sys::cuMemsetD32Async(to.0, word, words, self.stream) }
            .result()
            .map_err(|error| self.failed("filling memory", error))
    }

    fn function(&self, module: &Arc<Module>, name: &str) -> Result<Function> {
        let entry = find(module, name)?;
        let function = |id| Function { module: Arc::clone(module), entry, id };
        {
            let state = self.lock();
            let known = state.functions.iter().position(|f| Arc::ptr_eq(&f.module, module) && f.entry == entry);
            if let Some(id) = known {
                return Ok(function(id));
            }
        }
        self.enter()?;
        let known = self.lock().modules.iter().find(|(known, _)| Arc::ptr_eq(known, module)).map(|(_, handle)| *handle);
        let loaded = match known {
            Some(handle) => handle,
            None => {
                let handle = self.load(module)?;
                self.lock().modules.push((Arc::clone(module), handle));
                handle
            }
        };
        let symbol = CString::new(name).map_err(|_| Error::device("a 0 in a kernel's name", "remove it"))?;
        // SAFETY: the module was loaded and is not unloaded before this is dropped.
        let handle = unsafe { result::module::get_function(loaded, symbol) }
            .map_err(|error| self.failed(&format!("looking for kernel {name}"), error))?;
        let mut state = self.lock();
        state.functions.push(Loaded { module: Arc::clone(module), entry, handle, shared: PLAIN_SHARED });
        Ok(function(state.functions.len() - 1))
    }

    fn launch(&self, function: &Function, grid: Grid, args: &[Arg]) -> Result<()> {
        let kernel = function.kernel();
        let mut params = parameters(&function.module, kernel, args)?;
        check_grid(&function.module, kernel, grid, self.shared)?;
        self.enter()?;
        let (handle, allowed) = {
            let state = &mut *self.lock();
            state.recent[state.launches % RECENT] = function.id;
            state.launches += 1;
            let loaded = &mut state.functions[function.id];
            let allowed = loaded.shared;
            loaded.shared = allowed.max(grid.shared);
            (loaded.handle, allowed)
        };
        if grid.shared > allowed {
            let most = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function's module is loaded.
            unsafe { result::function::set_function_attribute(handle, most, grid.shared as i32) }
                .map_err(|error| self.failed(&format!("{} bytes of shared memory", grid.shared), error))?;
        }
        let start = params.as_mut_ptr();
        // SAFETY: `parameters` put each of them at its offset.
        let mut places: Vec<*mut c_void> =
            kernel.params.iter().map(|p| unsafe { start.add(p.offset) }.cast()).collect();
        let [[x, y, z], [a, b, c]] = [grid.blocks, grid.threads];
        let shared = grid.shared as c_uint;
        // SAFETY: the parameters are those of the kernel's list, in number and type, and are read before the call returns.
        // What the kernel does with addresses is its own affair: the simulator checks it.
        unsafe { result::launch_kernel(handle, (x, y, z), (a, b, c), shared, self.stream, &mut places) }
            .map_err(|error| self.failed("a launch", error))
    }

    fn sync(&self) -> Result<()> {
        self.enter()?;
        // SAFETY: the stream lives as long as this.
        unsafe { result::stream::synchronize(self.stream) }.map_err(|error| self.failed("waiting", error))?;
        self.lock().staging.used = 0;
        Ok(())
    }

    fn record(&self) -> Result<()> {
        self.enter()?;
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives as long as this.
        unsafe { result::stream::begin_capture(self.stream, mode) }.map_err(|error| self.failed("recording", error))
    }

    fn recorded(&self) -> Result<usize> {
        self.enter()?;
        // SAFETY: as above; the graph is used no more once it has become one that runs.
        let graph = unsafe {
            let graph = result::stream::end_capture(self.stream);
            graph.and_then(|graph| {
                let runs = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
                let _ = result::graph::destroy(graph);
                runs
            })
        };
        let graph = graph.map_err(|error| self.failed("recording", error))?;
        let graphs = &mut self.lock().graphs;
        graphs.push(graph);
        Ok(graphs.len() - 1)
    }

    fn replay(&self, recording: usize) -> Result<()> {
        self.enter()?;
        let graph = self.lock().graphs[recording];
        // SAFETY: graph and stream live as long as this.
        unsafe { result::graph::launch(graph, self.stream) }.map_err(|error| self.failed("a recorded step", error))
    }

    fn mark(&self, number: usize) -> Result<()> {
        self.enter()?;
        let failed = |error| self.failed("a mark", error);
        while self.lock().marks.len() <= number {
            let event = result::event::create(sys::CUevent_flags_enum::CU_EVENT_DEFAULT).map_err(failed)?;
            self.lock().marks.push(event);
        }
        let mark = self.lock().marks[number];
        // SAFETY: event and stream live as long as this.
        unsafe { result::event::record(mark, self.stream) }.map_err(failed)
    }

    fn between(&self, first: usize, second: usize) -> Result<f64> {
        self.sync()?;
        let [first, second] = [first, second].map(|number| self.lock().marks[number]);
        // SAFETY: both were recorded, and reached.
        let ms = unsafe { result::event::elapsed(first, second) }.map_err(|error| self.failed("a mark", error))?;
        Ok(f64::from(ms) / 1e3)
    }
}
