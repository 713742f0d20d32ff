// Five kernels in CUDA C. NVIDIA's compiler knows nothing of kiln's simulator: what it makes of them is an outside check of
// the interpreter. See nvcc.py.
#include <cuda_bf16.h>
#include <stdint.h>

// y = a x + y, in strides of the grid.
extern "C" __global__ void saxpy(float a, const float *__restrict__ x, float *__restrict__ y, int n) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) y[i] = fmaf(a, x[i], y[i]);
}

__device__ float over_block(float x, bool largest) {
    __shared__ float parts[8];
    for (int d = 16; d > 0; d /= 2) {
        float other = __shfl_xor_sync(~0u, x, d);
        x = largest ? fmaxf(x, other) : x + other;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    x = parts[0];
    for (int i = 1; i < blockDim.x / 32; i++) x = largest ? fmaxf(x, parts[i]) : x + parts[i];
    return x;
}

// A row of n numbers for each block: softmax.
extern "C" __global__ void softmax(const float *x, float *y, int n) {
    x += blockIdx.x * n, y += blockIdx.x * n;
    float most = -INFINITY, sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) most = fmaxf(most, x[i]);
    most = over_block(most, true);
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += expf(x[i] - most);
    sum = over_block(sum, false);
    for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = expf(x[i] - most) / sum;
}

// A row of n numbers for each warp: LayerNorm from bf16 to bf16, its sums in f64.
extern "C" __global__ void layernorm(const __nv_bfloat16 *x, const float *g, __nv_bfloat16 *y, int rows, int n) {
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    x += row * n, y += row * n;
    double sum = 0, square = 0;
    for (int i = threadIdx.x; i < n; i += 32) {
        double v = __bfloat162float(x[i]);
        sum += v, square += v * v;
    }
    for (int d = 16; d > 0; d /= 2) {
        sum += __shfl_down_sync(~0u, sum, d);
        square += __shfl_down_sync(~0u, square, d);
    }
    double mean = __shfl_sync(~0u, sum, 0) / n;
    float rstd = rsqrtf((float)(__shfl_sync(~0u, square, 0) / n - mean * mean) + 1e-5f);
    for (int i = threadIdx.x; i < n; i += 32)
        y[i] = __float2bfloat16((__bfloat162float(x[i]) - (float)mean) * rstd * g[i]);
}

// How often each of 64 values occurs: counts in shared memory, then in global; and how many are odd, by votes.
extern "C" __global__ void histogram(const uint8_t *x, unsigned *counts, unsigned long long *odd, int n) {
    __shared__ unsigned local[64];
    for (int i = threadIdx.x; i < 64; i += blockDim.x) local[i] = 0;
    __syncthreads();
    for (int first = blockIdx.x * blockDim.x; first < n; first += gridDim.x * blockDim.x) {
        int i = first + threadIdx.x;
        unsigned there = __ballot_sync(~0u, i < n);
        if (i < n) {
            atomicAdd(&local[x[i] & 63], 1);
            unsigned odds = __ballot_sync(there, x[i] & 1);
            if (threadIdx.x % 32 == __ffs(there) - 1) atomicAdd(odd, (unsigned long long)__popc(odds));
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 64; i += blockDim.x) atomicAdd(&counts[i], local[i]);
}

// C = A B for A (M, K), B (K, N) in bf16 and C in f32: a tile of 32 x 32 for each block of two warps, by tensor cores.
extern "C" __global__ void gemm(const __nv_bfloat16 *a, const __nv_bfloat16 *b, float *c, int n, int k) {
    __shared__ __align__(16) __nv_bfloat16 as[32][24], bs[16][40];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row = blockIdx.y * 32, col = blockIdx.x * 32;
    float sum[4][4] = {};
    for (int k0 = 0; k0 < k; k0 += 16) {
        int4 from_a = *(const int4 *)&a[(row + threadIdx.x / 2) * k + k0 + threadIdx.x % 2 * 8];
        int4 from_b = *(const int4 *)&b[(k0 + threadIdx.x / 4) * n + col + threadIdx.x % 4 * 8];
        __syncthreads();
        *(int4 *)&as[threadIdx.x / 2][threadIdx.x % 2 * 8] = from_a;
        *(int4 *)&bs[threadIdx.x / 4][threadIdx.x % 4 * 8] = from_b;
        __syncthreads();
        uint32_t fa[4], fb[8];
        uint32_t at = __cvta_generic_to_shared(&as[warp * 16 + lane % 16][lane / 16 * 8]);
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(fa[0]), "=r"(fa[1]), "=r"(fa[2]), "=r"(fa[3]) : "r"(at));
        for (int half = 0; half < 2; half++) {
            at = __cvta_generic_to_shared(&bs[lane % 16][half * 16 + lane / 16 * 8]);
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                         : "=r"(fb[half * 4]), "=r"(fb[half * 4 + 1]), "=r"(fb[half * 4 + 2]), "=r"(fb[half * 4 + 3])
                         : "r"(at));
        }
        for (int j = 0; j < 4; j++)
            asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
                         "{%8, %9}, {%0, %1, %2, %3};"
                         : "+f"(sum[j][0]), "+f"(sum[j][1]), "+f"(sum[j][2]), "+f"(sum[j][3])
                         : "r"(fa[0]), "r"(fa[1]), "r"(fa[2]), "r"(fa[3]), "r"(fb[j * 2]), "r"(fb[j * 2 + 1]));
    }
    for (int j = 0; j < 4; j++)
        for (int i = 0; i < 4; i++)
            c[(row + warp * 16 + lane / 4 + i / 2 * 8) * n + col + j * 8 + lane % 4 * 2 + i % 2] = sum[j][i];
}
