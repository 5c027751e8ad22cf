// Attention and GELU with their gradients, on a CPU of 8 or 16 float32 values a register. Built and called by cpu_kernels.py.
//
// Shapes: B batch, T tokens, H heads, D head width (a multiple of 16). float32 or bfloat16 in memory, float32 in between. A head
// is one thread's work from beginning to end, so results do not depend on the number of threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>

namespace {

#ifdef __AVX512F__
constexpr int LANES = 16, WIDE = 4;
#else
constexpr int LANES = 8, WIDE = 2;
#endif
constexpr int HIGH = 4;     // a product is made HIGH rows by WIDE registers at a time, which are held while it is summed
constexpr long TILE = 64;   // queries, and keys, at a time: 16 KB of scores
constexpr long APART = 16;  // between rows that would otherwise lie at multiples of 256 bytes, where a cache holds few of them
constexpr float INF = std::numeric_limits<float>::infinity(), EXP_END = 87;  // e^-87 is 1.6e-38; below it, 0
constexpr float GELU = 0.7978845608028654f, CUBIC = 0.044715f;              // u = sqrt(2 / pi) (x + 0.044715 x^3)

typedef float vec __attribute__((vector_size(4 * LANES), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), may_alias));
typedef uint16_t halves __attribute__((vector_size(2 * LANES), may_alias, aligned(2)));
typedef float floats __attribute__((vector_size(4 * LANES), may_alias, aligned(4)));
struct bfloat16 { uint16_t bits; };

inline vec load(const float *p) { return *reinterpret_cast<const floats *>(p); }
inline vec load(const bfloat16 *p) { return (vec)(__builtin_convertvector(*reinterpret_cast<const halves *>(p), ivec) << 16); }

inline void store(vec x, float *p) { *reinterpret_cast<floats *>(p) = x; }
inline void store(vec x, bfloat16 *p) {  // the nearest, of two the even one
    const ivec bits = (ivec)x, odd = bits >> 16 & 1, nearest = bits + 0x7fff + odd;
    *reinterpret_cast<halves *>(p) = __builtin_convertvector((x == x ? nearest : ivec{} + 0x7fc00000) >> 16, halves);
}

// Floats that lie at a multiple of 64 bytes, as vec must.
struct Room {
    float *at;
    explicit Room(long count) : at(static_cast<float *>(std::aligned_alloc(64, (count * 4 + 63) / 64 * 64))) {
        if (!at) std::abort();
    }
    ~Room() { std::free(at); }
    Room(const Room &) = delete;
    operator float *() { return at; }
};

inline vec &at(float *p) { return *reinterpret_cast<vec *>(p); }
inline const vec &at(const float *p) { return *reinterpret_cast<const vec *>(p); }

inline float sum(vec x) {
    float total = 0;
    for (int j = 0; j < LANES; j++) total += x[j];
    return total;
}

// e^x, 0 below -EXP_END; not for x above it. Cephes, expf: within 1.01 units in the last place, measured in steps of 1.7e-6.
inline vec exponential(vec x) {
    const vec end = vec{} - EXP_END, round = vec{} + 12582912.0f;  // 1.5 * 2^23: added and taken away, it rounds
    const vec bounded = x < end ? end : x;
    const vec n = (bounded * 1.44269504088896341f + round) - round;
    const vec r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
    vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    const ivec power = (__builtin_convertvector(n, ivec) + 127) << 23;
    return x < end ? vec{} : p * (vec)power;
}

// c (+)= a b, HIGH rows by `wide` registers: a of row m and column k lies at a[m am + k ak], rows of b and c bk and cm apart.
template <int wide>
inline __attribute__((always_inline)) void part_of_product(
    long K, const float *a, long am, long ak, const float *b, long bk, float *c, long cm, bool add) {
    vec sums[HIGH][wide]{};
#pragma GCC unroll 2
    for (long k = 0; k < K; k++) {
        vec right[wide];
#pragma GCC unroll 4
        for (int j = 0; j < wide; j++) right[j] = at(b + k * bk + j * LANES);
#pragma GCC unroll 4
        for (int i = 0; i < HIGH; i++)
#pragma GCC unroll 4
            for (int j = 0; j < wide; j++) sums[i][j] += a[i * am + k * ak] * right[j];
    }
#pragma GCC unroll 4
    for (int i = 0; i < HIGH; i++)
#pragma GCC unroll 4
        for (int j = 0; j < wide; j++) {  // added last, so that a long sum is one of short ones, which rounds less
            vec &to = at(c + i * cm + j * LANES);
            to = add ? to + sums[i][j] : sums[i][j];
        }
}

// c (+)= a b: (M, K) by (K, N), M a multiple of HIGH and N of LANES.
__attribute__((noinline)) void product(
    long M, long N, long K, const float *a, long am, long ak, const float *b, long bk, float *c, long cm, bool add) {
    long n = 0;
    for (; n + WIDE * LANES <= N; n += WIDE * LANES)
        for (long m = 0; m < M; m += HIGH) part_of_product<WIDE>(K, a + m * am, am, ak, b + n, bk, c + m * cm + n, cm, add);
    for (; n < N; n += LANES)
        for (long m = 0; m < M; m += HIGH) part_of_product<1>(K, a + m * am, am, ak, b + n, bk, c + m * cm + n, cm, add);
}

// A tensor (B, H, T, D) of float32 or bfloat16, values apart; those of D lie together.
struct View {
    void *data;
    long batch, head, token;
};

// One head of it.
template <class Value>
struct Head {
    Value *data;
    long token, T, D;
    Head(const View &view, long b, long h, long T, long D)
        : data(static_cast<Value *>(view.data) + b * view.batch + h * view.head), token(view.token), T(T), D(D) {}

    // Tokens begin..begin + count, times `scale`, as rows of D; beyond T zeros.
    void get(long begin, long count, float scale, float *rows) const {
        for (long t = 0; t < count; t++)
            for (long d = 0; d < D; d += LANES)
                at(rows + t * D + d) = begin + t < T ? load(data + (begin + t) * token + d) * scale : vec{};
    }
    void put(long begin, long count, float scale, const float *rows) const {
        for (long t = 0; t < std::min(count, T - begin); t++)
            for (long d = 0; d < D; d += LANES) store(at(rows + t * D + d) * scale, data + (begin + t) * token + d);
    }
};

// (count, D) to (D, count), rows `apart` from each other; count is a multiple of 16, which are written together.
void transpose(const float *rows, long count, long D, float *columns, long apart) {
    for (long begin = 0; begin < count; begin += 16)
        for (long d = 0; d < D; d++)
            for (long t = begin; t < begin + 16; t++) columns[d * apart + t] = rows[t * D + d];
}

// The first key that each query of a batch element sees, the last being its own.
struct Seen {
    const int32_t *first;  // (T), or null where all from key 0 on are seen
    long T;
    long from(long query) const { return first && query < T ? first[query] : 0; }

    // Scores of `count` keys from `begin` on: those that the query does not see become -inf.
    void hide(float *scores, long query, long begin, long count) const {
        const int first = int(from(query) - begin), last = int(query - begin);
        ivec key;
        for (int j = 0; j < LANES; j++) key[j] = j;
        for (int j = first > 0 ? 0 : std::max(last / LANES * LANES, 0); j < count; j += LANES)
            at(scores + j) = (key + j < first) | (key + j > last) ? vec{} - INF : at(scores + j);
    }
};

// Scores to e^(score - largest); returns largest + ln of their sum, and the sum.
float softmax(float *scores, long count, float &total) {
    vec top = at(scores), parts{};
    for (long j = LANES; j < count; j += LANES) top = at(scores + j) > top ? at(scores + j) : top;
    float largest = top[0];
    for (int j = 1; j < LANES; j++) largest = std::max(largest, top[j]);
    for (long j = 0; j < count; j += LANES) parts += at(scores + j) = exponential(at(scores + j) - largest);
    total = sum(parts);
    return largest + std::log(total);
}

template <class Value>
void attention(View q, View k, View v, View y, float *logs, const int32_t *first, long B, long H, long T, long D) {
    const long end = (T + TILE - 1) / TILE * TILE, apart = end + APART;
#pragma omp parallel
    {
        Room keys(D * apart), values(end * D), queries(TILE * D), scores(TILE * apart), out(TILE * D);
#pragma omp for collapse(2) schedule(dynamic)
        for (long b = 0; b < B; b++)
            for (long h = 0; h < H; h++) {
                const Seen seen{first ? first + b * T : nullptr, T};
                const Head<Value> to(y, b, h, T, D), of(q, b, h, T, D);
                Head<Value>(k, b, h, T, D).get(0, end, 1, values);
                transpose(values, end, D, keys, apart);
                Head<Value>(v, b, h, T, D).get(0, end, 1, values);
                for (long a = 0; a < T; a += TILE) {
                    const long begin = seen.from(a) / TILE * TILE, count = a + TILE - begin;
                    of.get(a, TILE, 1 / std::sqrt(float(D)), queries);
                    product(TILE, count, D, queries, D, 1, keys + begin, apart, scores, apart, false);
                    float totals[TILE];
                    for (long i = 0; i < TILE; i++) {
                        seen.hide(scores + i * apart, a + i, begin, count);
                        const float log = softmax(scores + i * apart, count, totals[i]);
                        if (a + i < T) logs[(b * H + h) * T + a + i] = log;
                    }
                    for (long j = 0; j < count; j += TILE)
                        product(TILE, D, TILE, scores + j, apart, 1, values + (begin + j) * D, D, out, D, j > 0);
                    for (long i = 0; i < TILE; i++) to.put(a + i, 1, 1 / totals[i], out + i * D);
                }
            }
    }
}

// dS = P (dO V^T - rowsum(dO O)): Dao et al. 2022 (FlashAttention), appendix B.2. Tiles of keys, and for each those of queries.
template <class Value>
void attention_gradients(View q, View k, View v, View y, View dy, View dq, View dk, View dv, const float *logs,
                         const int32_t *first, long B, long H, long T, long D) {
    const long end = (T + TILE - 1) / TILE * TILE, apart = TILE + APART;
    const float scale = 1 / std::sqrt(float(D));
#pragma omp parallel
    {
        Room queries(end * D), d_out(end * D), d_queries(end * D), sums(end);
        Room keys(TILE * D), d_keys(TILE * D), d_values(TILE * D);
        Room keys_t(D * apart), values_t(D * apart), powers(TILE * apart), d_scores(TILE * apart);
#pragma omp for collapse(2) schedule(dynamic)
        for (long b = 0; b < B; b++)
            for (long h = 0; h < H; h++) {
                const Seen seen{first ? first + b * T : nullptr, T};
                const float *log = logs + (b * H + h) * T;
                Head<Value>(y, b, h, T, D).get(0, end, 1, queries);
                Head<Value>(dy, b, h, T, D).get(0, end, 1, d_out);
                for (long t = 0; t < end; t++) {
                    vec parts{};
                    for (long d = 0; d < D; d += LANES) parts += at(queries + t * D + d) * at(d_out + t * D + d);
                    sums[t] = sum(parts);
                }
                Head<Value>(q, b, h, T, D).get(0, end, scale, queries);
                std::fill_n(d_queries.at, end * D, 0.0f);
                for (long j = 0; j < end; j += TILE) {
                    Head<Value>(v, b, h, T, D).get(j, TILE, 1, keys);
                    transpose(keys, TILE, D, values_t, apart);
                    Head<Value>(k, b, h, T, D).get(j, TILE, 1, keys);
                    transpose(keys, TILE, D, keys_t, apart);
                    for (long a = j; a < T && seen.from(a) < j + TILE; a += TILE) {
                        product(TILE, TILE, D, queries + a * D, D, 1, keys_t, apart, powers, apart, false);
                        product(TILE, TILE, D, d_out + a * D, D, 1, values_t, apart, d_scores, apart, false);
                        for (long i = 0; i < TILE; i++) {
                            float *p = powers + i * apart, *ds = d_scores + i * apart;
                            seen.hide(p, a + i, j, TILE);
                            for (long c = 0; c < TILE; c += LANES) {
                                at(p + c) = exponential(at(p + c) - (a + i < T ? log[a + i] : INF));
                                at(ds + c) = at(p + c) * (at(ds + c) - sums[a + i]);
                            }
                        }
                        product(TILE, D, TILE, powers, 1, apart, d_out + a * D, D, d_values, D, a > j);
                        product(TILE, D, TILE, d_scores, 1, apart, queries + a * D, D, d_keys, D, a > j);
                        product(TILE, D, TILE, d_scores, apart, 1, keys, D, d_queries + a * D, D, true);
                    }
                    Head<Value>(dk, b, h, T, D).put(j, TILE, 1, d_keys);
                    Head<Value>(dv, b, h, T, D).put(j, TILE, 1, d_values);
                }
                Head<Value>(dq, b, h, T, D).put(0, end, scale, d_queries);
            }
    }
}

// y = function(x, more), LANES values at a time; the last ones among zeros.
template <class Value, class Function>
void each(const Value *x, const Value *more, Value *y, long count, Function function) {
    const long whole = count / LANES * LANES, left = count - whole;
#pragma omp parallel for
    for (long i = 0; i < whole; i += LANES) store(function(load(x + i), load(more + i)), y + i);
    Value of_x[LANES]{}, of_more[LANES]{}, of_y[LANES];
    std::copy_n(x + whole, left, of_x);
    std::copy_n(more + whole, left, of_more);
    store(function(load(of_x), load(of_more)), of_y);
    std::copy_n(of_y, left, y + whole);
}

// e^-2u, where tanh GELU is x (1 + tanh u) / 2 = x / (1 + e^-2u).
inline vec gelu_power(vec x) {
    const vec end = vec{} + EXP_END, exponent = x * (x * x * (-2 * GELU * CUBIC) - 2 * GELU);
    return exponential(exponent > end ? end : exponent);
}

template <class Value>
void gelu(const Value *x, Value *y, long count) {
    each(x, x, y, count, [](vec x, vec) { return x / (1 + gelu_power(x)); });
}

template <class Value>
void gelu_gradient(const Value *x, const Value *dy, Value *dx, long count) {
    each(x, dy, dx, count, [](vec x, vec dy) {
        const vec power = gelu_power(x), sigmoid = 1 / (1 + power);  // and power * sigmoid is 1 - sigmoid
        return dy * (sigmoid + (x * sigmoid) * (power * sigmoid) * (x * x * (6 * GELU * CUBIC) + 2 * GELU));
    });
}

}  // namespace

// `half`: 1 for bfloat16, 0 for float32. `logs` are logarithms of the sums of e^score, (B, H, T); `first` is (B, T) or null.
extern "C" {

void kernel_attention(
    View q, View k, View v, View y, float *logs, const int32_t *first, long B, long H, long T, long D, int half) {
    (half ? attention<bfloat16> : attention<float>)(q, k, v, y, logs, first, B, H, T, D);
}

void kernel_attention_gradients(View q, View k, View v, View y, View dy, View dq, View dk, View dv, float *logs,
                                const int32_t *first, long B, long H, long T, long D, int half) {
    (half ? attention_gradients<bfloat16> : attention_gradients<float>)(q, k, v, y, dy, dq, dk, dv, logs, first, B, H, T, D);
}

void kernel_gelu(void *x, void *y, long count, int half) {
    if (half) gelu((bfloat16 *)x, (bfloat16 *)y, count);
    else gelu((float *)x, (float *)y, count);
}

void kernel_gelu_gradient(void *x, void *dy, void *dx, long count, int half) {
    if (half) gelu_gradient((bfloat16 *)x, (bfloat16 *)dy, (bfloat16 *)dx, count);
    else gelu_gradient((float *)x, (float *)dy, (float *)dx, count);
}

}  // extern "C"
