// Products of matrices of whole numbers in double: exact below 2^53, so that any order of sums gives the same words.
#include <cstring>
#include <new>

#ifdef __AVX512F__
constexpr int kLanes = 8, kRows = 6, kVectors = 4;  // 24 sums, 4 operands and one more in 32 registers
#else
constexpr int kLanes = 4, kRows = 4, kVectors = 3;  // 12, 3 and one in 16
#endif
constexpr long kDepth = 128;  // rows of b that stay in the first cache beside a tile

typedef double Vector __attribute__((vector_size(8 * kLanes), aligned(8), may_alias));

struct Left {  // a[row][step] at row * row_stride + step * step_stride
    const double* words;
    long row_stride, step_stride;
};
struct Matrix {  // neighbours in a row
    double* words;
    long stride;
};

template <int R, int C>
static void tile(Left a, const double* b, long b_stride, long depth, bool add, Matrix sum) {
    Vector found[R][C];
    for (int r = 0; r < R; ++r)
        for (int c = 0; c < C; ++c)
            found[r][c] = add ? reinterpret_cast<Vector*>(sum.words + r * sum.stride)[c] : Vector{};
    for (long k = 0; k < depth; ++k) {
        const Vector* row = reinterpret_cast<const Vector*>(b + k * b_stride);
        for (int r = 0; r < R; ++r) {
            const double word = a.words[r * a.row_stride + k * a.step_stride];
            for (int c = 0; c < C; ++c) found[r][c] += word * row[c];
        }
    }
    for (int r = 0; r < R; ++r)
        for (int c = 0; c < C; ++c) reinterpret_cast<Vector*>(sum.words + r * sum.stride)[c] = found[r][c];
}

template <int R, int C>
static void down(Left a, const double* b, long b_stride, long rows, long depth, bool add, Matrix sum) {
    for (; rows >= R; rows -= R) {
        tile<R, C>(a, b, b_stride, depth, add, sum);
        a.words += R * a.row_stride;
        sum.words += R * sum.stride;
    }
    if constexpr (R > 1) down<R - 1, C>(a, b, b_stride, rows, depth, add, sum);
}

template <int C>
static void across(Left a, const double* b, long b_stride, long rows, long columns, long depth, bool add, Matrix sum) {
    for (; columns >= C * kLanes; columns -= C * kLanes) {
        down<kRows, C>(a, b, b_stride, rows, depth, add, sum);
        b += C * kLanes;
        sum.words += C * kLanes;
    }
    if constexpr (C > 1) across<C - 1>(a, b, b_stride, rows, columns, depth, add, sum);
}

// Of whole vectors.
static void multiply(Left a, const double* b, long b_stride, long rows, long columns, long depth, Matrix sum,
                     bool add = false) {
    for (long k = 0; k == 0 || k < depth; k += kDepth) {
        across<kVectors>(a, b + k * b_stride, b_stride, rows, columns, depth - k < kDepth ? depth - k : kDepth, add || k, sum);
        a.words += kDepth * a.step_stride;
    }
}

// b with columns up to a whole vector, zeros in them, and room for some rows of sums; both aligned.
struct Factor {
    long depth, stride;
    double *words, *sums;

    Factor(long rows, long columns, long depth, const double* b, long b_stride)
        : depth(depth), stride((columns + kLanes - 1) / kLanes * kLanes) {
        words = new (std::align_val_t{64}) double[(depth + rows) * stride];
        sums = words + depth * stride;
        for (long k = 0; k < depth; ++k) {
            std::memcpy(words + k * stride, b + k * b_stride, 8 * columns);
            for (long j = columns; j < stride; ++j) words[k * stride + j] = 0;
        }
    }
    ~Factor() { operator delete[](words, std::align_val_t{64}); }

    void multiplied(Left a, long rows) const { multiply(a, words, stride, rows, stride, depth, {sums, stride}); }
};
constexpr long kSome = 4 * kRows;  // rows of sums that stay in the first cache

// Zeros at first; columns up to a whole vector stay zeros.
template <class T>
struct Words {
    long rows, columns, stride;
    T* words;

    Words(long rows, long columns) : rows(rows), columns(columns), stride((columns + kLanes - 1) / kLanes * kLanes) {
        words = new (std::align_val_t{64}) T[rows * stride]();
    }
    ~Words() { operator delete[](words, std::align_val_t{64}); }

    template <class From>
    void copied(const From* from, long from_stride, long some) {
        for (long i = 0; i < some; ++i)
            for (long j = 0; j < columns; ++j) words[i * stride + j] = from[i * from_stride + j];
    }
    // To neighbours, or all of them to one.
    void add(int64_t* to, bool one) const {
        for (long i = 0; i < rows; ++i)
            for (long j = 0; j < columns; ++j) to[one ? 0 : i * columns + j] += static_cast<int64_t>(words[i * stride + j]);
    }
};

// sum[rows][columns] = a[rows][depth] b[depth][columns]; strides in words.
extern "C" void product(long rows, long columns, long depth, const double* a, long a_row, long a_step, const double* b,
                        long b_stride, double* sum, long sum_stride) {
    if (columns % kLanes == 0) return multiply({a, a_row, a_step}, b, b_stride, rows, columns, depth, {sum, sum_stride});
    const Factor factor(rows, columns, depth, b, b_stride);
    factor.multiplied({a, a_row, a_step}, rows);
    for (long i = 0; i < rows; ++i) std::memcpy(sum + i * sum_stride, factor.sums + i * factor.stride, 8 * columns);
}
