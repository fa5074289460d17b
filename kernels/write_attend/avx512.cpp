// Write chunks of keys and values into rings, each before it attends: for CPUs with AVX512-BF16.
//
// A task is up to 16 queries of one head, in the 16 lanes of a register: scores, softmax and sums never cross lanes; only
// the result is transposed at the end. Keys are read in place, two channels at a time, and broadcast to all lanes. Products
// are of bf16 pairs; sums, scores and softmax are float32; weights are rounded to bf16 for the product with the values.

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <new>

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

namespace {

constexpr int64_t kLanes = 16;  // queries of a task, and keys or channels of a block
using Bits = uint16_t;          // the bits of a bf16

__m512bh as_pairs(__m512i x) { return (__m512bh)x; }

__m512bh broadcast_pair(const Bits* pair) {
  int32_t both;
  std::memcpy(&both, pair, sizeof both);
  return as_pairs(_mm512_set1_epi32(both));
}

struct Aligned {
  void operator()(void* memory) const { ::operator delete[](memory, std::align_val_t(64)); }
};

// Per-thread scratch memory, reused by later calls.
template <typename T>
T* scratch(std::unique_ptr<void, Aligned>& memory, int64_t& capacity, int64_t count) {
  if (capacity < count) {
    memory.reset(::operator new[](count * sizeof(T), std::align_val_t(64)));
    capacity = count;
  }
  return static_cast<T*>(memory.get());
}

// 2^x for x <= 0, with a relative error of about 2e-6.
__m512 exp2_of(__m512 x) {
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 part = _mm512_sub_ps(x, whole);  // in [-1/2, 1/2]: Taylor series of exp(part ln 2)
  __m512 y = _mm512_set1_ps(1.3333558e-3f);
  y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(9.6181291e-3f));
  y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(5.5504109e-2f));
  y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(2.4022651e-1f));
  y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(6.9314718e-1f));
  y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(y, whole);
}

// Tokens of one head, `stride` apart, with contiguous channels.
struct Tokens {
  const Bits* first;
  int64_t stride;
};

// Packs the queries of a task as pairs of channels: d/2 registers, 0 in lanes without a query.
void pack_queries(Tokens q, int64_t count, int64_t dim, Bits* packed) {
  std::memset(packed, 0, dim * kLanes * sizeof(Bits));
  for (int64_t lane = 0; lane < count; ++lane)
    for (int64_t i = 0; i < dim; i += 2)
      std::memcpy(packed + i * kLanes + 2 * lane, q.first + lane * q.stride + i, 2 * sizeof(Bits));
}

// Multiplies N keys with the queries: scores of N keys, 16 lanes each. Returns the largest score of each lane.
template <int N>
__m512 block_scores(const Bits* packed, const Bits* keys, int64_t dim, float* scores, __m512 largest) {
  __m512 sums[N];
  for (int i = 0; i < N; ++i) sums[i] = _mm512_setzero_ps();
  for (int64_t pair = 0; pair < dim; pair += 2) {
    const __m512bh query = as_pairs(_mm512_load_si512(packed + pair * kLanes));
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) sums[i] = _mm512_dpbf16_ps(sums[i], query, broadcast_pair(keys + i * dim + pair));
  }
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i) {
    _mm512_store_ps(scores + i * kLanes, sums[i]);
    largest = _mm512_max_ps(largest, sums[i]);
  }
  return largest;
}

__m512 all_scores(
    const Bits* packed, const Bits* keys, int64_t from, int64_t to, int64_t dim, float* scores, __m512 largest) {
  for (; from + kLanes <= to; from += kLanes)
    largest = block_scores<kLanes>(packed, keys + from * dim, dim, scores + from * kLanes, largest);
  for (; from < to; ++from)
    largest = block_scores<1>(packed, keys + from * dim, dim, scores + from * kLanes, largest);
  return largest;
}

// Rounds the weights of two keys and puts them side by side in each lane.
__m512i weight_pair(__m512 even, __m512 odd) {
  const __m512i first = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(even));
  const __m512i second = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(odd));
  return _mm512_or_si512(first, _mm512_slli_epi32(second, 16));
}

// Computes exp(scores - largest) as pairs of keys and returns 1/their sum. An odd number of keys is padded with weight 0.
__m512 softmax(const float* scores, __m512 largest, int64_t num_keys, float scale, Bits* weights) {
  const __m512 by = _mm512_set1_ps(scale * float(M_LOG2E));
  const __m512 top = _mm512_mul_ps(largest, by);
  __m512 sum = _mm512_setzero_ps();
  for (int64_t key = 0; key < num_keys; key += 2) {
    const __m512 even = exp2_of(_mm512_fmsub_ps(_mm512_load_ps(scores + key * kLanes), by, top));
    __m512 odd = _mm512_setzero_ps();
    if (key + 1 < num_keys) odd = exp2_of(_mm512_fmsub_ps(_mm512_load_ps(scores + (key + 1) * kLanes), by, top));
    sum = _mm512_add_ps(sum, _mm512_add_ps(even, odd));
    _mm512_store_si512(weights + key * kLanes, weight_pair(even, odd));
  }
  return _mm512_div_ps(_mm512_set1_ps(1.0f), sum);
}

// Interleaves the values of two keys channel by channel.
void pair_values(const Bits* values, int64_t num_keys, int64_t dim, Bits* pairs) {
  alignas(64) Bits low[32], high[32];
  for (int i = 0; i < 16; ++i) {
    low[2 * i] = i, low[2 * i + 1] = 32 + i;
    high[2 * i] = 16 + i, high[2 * i + 1] = 48 + i;
  }
  const __m512i lower = _mm512_load_si512(low), upper = _mm512_load_si512(high);
  for (int64_t key = 0; key < num_keys; key += 2)
    for (int64_t channel = 0; channel < dim; channel += 32) {
      const __m512i even = _mm512_loadu_si512(values + key * dim + channel);
      __m512i odd = _mm512_setzero_si512();
      if (key + 1 < num_keys) odd = _mm512_loadu_si512(values + (key + 1) * dim + channel);
      Bits* out = pairs + key * dim + 2 * channel;
      _mm512_store_si512(out, _mm512_permutex2var_epi16(even, lower, odd));
      _mm512_store_si512(out + 32, _mm512_permutex2var_epi16(even, upper, odd));
    }
}

// Computes weighted sums of 16 channels from `channel` on, 16 lanes each.
void block_sums(
    const Bits* weights, const Bits* pairs, int64_t num_keys, int64_t dim, int64_t channel, __m512 root, float* out) {
  __m512 sums[kLanes];
  for (int i = 0; i < kLanes; ++i) sums[i] = _mm512_setzero_ps();
  for (int64_t key = 0; key < num_keys; key += 2) {
    const __m512bh weight = as_pairs(_mm512_load_si512(weights + key * kLanes));
    const Bits* value = pairs + key * dim + 2 * channel;
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) sums[i] = _mm512_dpbf16_ps(sums[i], weight, broadcast_pair(value + 2 * i));
  }
  for (int i = 0; i < kLanes; ++i) _mm512_store_ps(out + i * kLanes, _mm512_mul_ps(sums[i], root));
}

// Transposes from 16 lanes per channel to contiguous channels.
void transpose(const float* sums, int64_t count, int64_t dim, Bits* out, int64_t stride) {
  const __m512i rows = _mm512_mullo_epi32(
      _mm512_set1_epi32(kLanes), _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
  for (int64_t lane = 0; lane < count; ++lane)
    for (int64_t channel = 0; channel < dim; channel += kLanes) {
      const __m512 found = _mm512_i32gather_ps(rows, sums + channel * kLanes + lane, sizeof(float));
      _mm256_storeu_si256((__m256i*)(out + lane * stride + channel), (__m256i)_mm512_cvtneps_pbh(found));
    }
}

// Attends with up to 16 queries of one head to all keys of its ring. q_sink.first is null if there is no sink.
void attend(
    Tokens q,
    Tokens q_sink,
    int64_t count,
    const Bits* keys,
    const Bits* values,
    int64_t num_keys,
    int64_t num_sink,
    int64_t dim,
    Bits* out,
    int64_t out_stride) {
  thread_local std::unique_ptr<void, Aligned> memory;
  thread_local int64_t capacity = 0;
  const int64_t even_keys = num_keys + num_keys % 2;
  const int64_t floats = (even_keys + dim) * kLanes, packed = dim * kLanes;
  float* scores = scratch<float>(memory, capacity, floats + (packed + even_keys * (kLanes + dim)) / 2);
  float* sums = scores + even_keys * kLanes;
  Bits* queries = reinterpret_cast<Bits*>(scores + floats);
  Bits* weights = queries + packed;
  Bits* pairs = weights + even_keys * kLanes;

  __m512 largest = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  if (q_sink.first != nullptr && num_sink > 0) {
    pack_queries(q_sink, count, dim, queries);
    largest = all_scores(queries, keys, 0, num_sink, dim, scores, largest);
  } else {
    num_sink = 0;
  }
  pack_queries(q, count, dim, queries);
  largest = all_scores(queries, keys, num_sink, num_keys, dim, scores, largest);
  const __m512 root = softmax(scores, largest, num_keys, 1.0f / std::sqrt(float(dim)), weights);
  pair_values(values, num_keys, dim, pairs);
  for (int64_t channel = 0; channel < dim; channel += kLanes)
    block_sums(weights, pairs, num_keys, dim, channel, root, sums + channel * kLanes);
  transpose(sums, count, dim, out, out_stride);
}

// A tensor `b l n d` with contiguous channels.
struct Heads {
  const Bits* data = nullptr;
  int64_t at_b = 0, at_l = 0, at_n = 0;

  Heads() = default;

  Heads(const at::Tensor& x, at::IntArrayRef sizes, const char* name) {
    TORCH_CHECK_VALUE(
        x.dim() == 4 && x.scalar_type() == at::kBFloat16 && x.sizes() == sizes && x.stride(3) == 1, "write_attend: ",
        name, " is ", x.scalar_type(), " ", x.sizes(), ", expected bfloat16 ", sizes, " with contiguous channels");
    data = reinterpret_cast<const Bits*>(x.const_data_ptr());
    at_b = x.stride(0), at_l = x.stride(1), at_n = x.stride(2);
  }

  Tokens of(int64_t b, int64_t n, int64_t first) const {
    return {data == nullptr ? nullptr : data + b * at_b + n * at_n + first * at_l, at_l};
  }
};

// q, k, v `b l n d`; keys, values `s n f t d`; rows: per chunk, int64 `b n chunk_frames`, flat.
at::Tensor write_attend(
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    const at::Tensor& keys,
    const at::Tensor& values,
    at::TensorList rows,
    const std::optional<at::Tensor>& q_sink,
    int64_t num_sink) {
  const Heads queries(q, q.sizes(), "q"), new_keys(k, q.sizes(), "k"), new_values(v, q.sizes(), "v");
  const Heads sink_queries = q_sink ? Heads(*q_sink, q.sizes(), "q_sink") : Heads();
  TORCH_CHECK_VALUE(
      keys.dim() == 5 && keys.scalar_type() == at::kBFloat16 && values.scalar_type() == at::kBFloat16 &&
          keys.sizes() == values.sizes() && keys.is_contiguous() && values.is_contiguous(),
      "write_attend: keys are ", keys.scalar_type(), " ", keys.sizes(), ", values ", values.scalar_type(), " ",
      values.sizes(), ", expected contiguous bfloat16 (s, n, f, t, d)");
  const int64_t batch = q.size(0), length = q.size(1), heads = q.size(2), dim = q.size(3);
  const int64_t frames = keys.size(2), tokens = keys.size(3), chunks = rows.size();
  TORCH_CHECK_VALUE(
      tokens > 0 && keys.size(1) == heads && keys.size(4) == dim && dim % 32 == 0 && chunks > 0 && length % (chunks * tokens) == 0,
      "write_attend: q ", q.sizes(), " does not fit ", chunks, " chunks in keys ", keys.sizes(),
      "; heads of 32, 64, 96 … channels");
  const int64_t chunk = length / chunks, chunk_frames = chunk / tokens, groups = (chunk + kLanes - 1) / kLanes;
  TORCH_CHECK_VALUE(num_sink >= 0 && num_sink <= frames * tokens, "write_attend: num_sink is ", num_sink);
  for (const at::Tensor& places : rows) {
    TORCH_CHECK_VALUE(
        places.scalar_type() == at::kLong && places.is_contiguous() && places.numel() == batch * heads * chunk_frames,
        "write_attend: rows are ", places.scalar_type(), " ", places.sizes(), ", expected contiguous int64 (",
        batch * heads * chunk_frames, ")");
    const int64_t* row = places.const_data_ptr<int64_t>();
    const auto [least, most] = std::minmax_element(row, row + places.numel());
    TORCH_CHECK_INDEX(
        places.numel() == 0 || (*least >= 0 && *most < keys.size(0) * heads * frames), "write_attend: rows from ",
        *least, " to ", *most, " of ", keys.size(0) * heads * frames);
  }
  at::Tensor attended = at::empty({batch, length, heads, dim}, q.options());
  Bits* all_keys = reinterpret_cast<Bits*>(keys.mutable_data_ptr());
  Bits* all_values = reinterpret_cast<Bits*>(values.mutable_data_ptr());
  Bits* out = reinterpret_cast<Bits*>(attended.mutable_data_ptr());

  for (int64_t number = 0; number < chunks; ++number) {
    const int64_t* row = rows[number].const_data_ptr<int64_t>();
    for (int64_t i = 0; i < batch * heads; ++i) {
      const Tokens key = new_keys.of(i / heads, i % heads, number * chunk);
      const Tokens value = new_values.of(i / heads, i % heads, number * chunk);
      for (int64_t token = 0; token < chunk; ++token) {
        const int64_t to = (row[i * chunk_frames + token / tokens] * tokens + token % tokens) * dim;
        std::memcpy(all_keys + to, key.first + token * key.stride, dim * sizeof(Bits));
        std::memcpy(all_values + to, value.first + token * value.stride, dim * sizeof(Bits));
      }
    }
    at::parallel_for(0, batch * heads * groups, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t i = task / groups, first = task % groups * kLanes, b = i / heads, n = i % heads;
        const int64_t ring = row[i * chunk_frames] / frames * frames * tokens * dim;
        const int64_t token = number * chunk + first;
        attend(
            queries.of(b, n, token), sink_queries.of(b, n, token), std::min(kLanes, chunk - first), all_keys + ring,
            all_values + ring, frames * tokens, num_sink, dim, out + ((b * length + token) * heads + n) * dim,
            heads * dim);
      }
    });
  }
  return attended;
}

}  // namespace

TORCH_LIBRARY(lightcone_avx512, m) {
  m.def(
      "write_attend(Tensor q, Tensor k, Tensor v, Tensor(a!) keys, Tensor(b!) values, Tensor[] rows, Tensor? q_sink, "
      "int num_sink) -> Tensor");
  m.impl("write_attend", c10::DispatchKey::CPU, &write_attend);
}
