/* Affine layers of a masked autoregressive flow (Papamakarios et al. 1705.07057, as nflows has it), both ways, for one
 * tile of events at a time: what a tile needs stays in the first-level cache, and only weights that a mask leaves are
 * multiplied.
 *
 * Compiled by raypipe/models/native.py with -DREAL=float or double. The plain form are `forward_layer` and
 * `inverse_layer` of maf.py. Hidden units are sorted by degree; ends[i] of them have a degree of at most i, and see the
 * first i inputs and units of no higher degree.
 *
 * Weights of a layer, one after another, row-major: initial (h, 1 + d), context (h, 2); for each block context (h, 2),
 * first (h, h), second (h, h), bias (h); final (2 d, h), bias (2 d). Biases stand in front of the rows they go with.
 */
#include <math.h>
#include <string.h>

#define IS_FLOAT (sizeof(REAL) == 4)
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
/* As in spline.c: glibc's vector forms. */
__attribute__((__simd__("notinbranch"))) extern float expf(float);
__attribute__((__simd__("notinbranch"))) extern float logf(float);
__attribute__((__simd__("notinbranch"))) extern double exp(double);
__attribute__((__simd__("notinbranch"))) extern double log(double);
#endif
#define EXP(v) (IS_FLOAT ? (REAL)expf((float)(v)) : (REAL)exp((double)(v)))
#define LOG(v) (IS_FLOAT ? (REAL)logf((float)(v)) : (REAL)log((double)(v)))

#define WIDTH (64 / (int)sizeof(REAL))
#define VECTORS 4
#define TILE (WIDTH * VECTORS)
#define LANES _Pragma("omp simd") for (int j = 0; j < TILE; j++)

typedef REAL Vector __attribute__((vector_size(64)));
typedef union {
    Vector v[VECTORS];
    REAL e[TILE];
} Row;

typedef struct {
    int layers, blocks, d, h;
    const long *ends;
    REAL least;
} Shape;

/* out[0..count) += w (count rows of stride ld, of which `depth` columns count) times in. */
#define PRODUCT(NAME, COUNT)                                                                                          \
    static inline void NAME(const REAL *w, long ld, long depth, const Row *in, Row *out) {                            \
        Vector sum[COUNT][VECTORS];                                                                                   \
        for (int r = 0; r < COUNT; r++)                                                                               \
            for (int v = 0; v < VECTORS; v++) sum[r][v] = out[r].v[v];                                                \
        for (long k = 0; k < depth; k++)                                                                              \
            for (int r = 0; r < COUNT; r++)                                                                           \
                for (int v = 0; v < VECTORS; v++) sum[r][v] += w[r * ld + k] * in[k].v[v];                            \
        for (int r = 0; r < COUNT; r++)                                                                               \
            for (int v = 0; v < VECTORS; v++) out[r].v[v] = sum[r][v];                                                \
    }
PRODUCT(product1, 1)
PRODUCT(product2, 2)
PRODUCT(product4, 4)

static void product(const REAL *w, long ld, long rows, long depth, const Row *in, Row *out) {
    long r = 0;
    for (; r + 4 <= rows; r += 4) product4(w + r * ld, ld, depth, in, out + r);
    for (; r + 2 <= rows; r += 2) product2(w + r * ld, ld, depth, in, out + r);
    for (; r < rows; r++) product1(w + r * ld, ld, depth, in, out + r);
}

/* Hidden units [from, to) from inputs x[0..known): h, and each block's two activations r and t in `work`. */
static void units(const REAL *w, Shape s, long from, long to, long known, const Row *x, const Row *mass,
                  Row *hidden, Row *work) {
    const REAL *initial = w, *context = initial + (long)s.h * (1 + s.d), *at = context + 2L * s.h;
    for (long u = from; u < to; u++) {
        REAL bias = initial[u * (1 + s.d)];
        LANES {
            REAL gate = context[2 * u] + context[2 * u + 1] * mass->e[j];
            hidden[u].e[j] = (gate < 0 ? 0 : gate) + bias;
        }
    }
    product(initial + from * (1 + s.d) + 1, 1 + s.d, to - from, known, x, hidden + from);
    for (int b = 0; b < s.blocks; b++) {
        const REAL *gate = at, *first = gate + 2L * s.h, *second = first + (long)s.h * s.h;
        const REAL *bias = second + (long)s.h * s.h;
        Row *r = work + 2L * b * s.h, *t = r + s.h;
        for (long u = from; u < to; u++) LANES {
            r[u].e[j] = hidden[u].e[j] < 0 ? 0 : hidden[u].e[j];
            t[u].e[j] = gate[2 * u] + gate[2 * u + 1] * mass->e[j];
        }
        product(first + from * s.h, s.h, to - from, to, r, t + from);
        for (long u = from; u < to; u++) LANES {
            t[u].e[j] = t[u].e[j] < 0 ? 0 : t[u].e[j];
            hidden[u].e[j] += bias[u];
        }
        product(second + from * s.h, s.h, to - from, to, t, hidden + from);
        at = bias + s.h;
    }
}

static long layer_size(Shape s) {
    return (long)s.h * (1 + s.d) + 2L * s.h + s.blocks * (3L * s.h + 2L * s.h * s.h) + 2L * s.d * (s.h + 1);
}

/* in, out: (n, d); mass: (n); weights: of all layers; work: (1 + 2 blocks) h + 3 d rows of a tile, 64-byte aligned. */
void maf_affine(const REAL *in, const REAL *mass, const REAL *weights, REAL *out, REAL *space, const long *ends, long n,
                int layers, int blocks, int d, int h, double least, int inverse) {
    Shape s = {layers, blocks, d, h, ends, least};
    long size = layer_size(s);
    Row *hidden = (Row *)space, *work = hidden + h, *x = work + 2L * blocks * h, *y = x + d, *next = y + d, c;
    for (long start = 0; start < n; start += TILE) {
        int len = n - start < TILE ? (int)(n - start) : TILE;
        for (int j = 0; j < TILE; j++) {
            long event = start + (j < len ? j : 0); /* the last tile is filled up with an event of its own */
            c.e[j] = mass[event];
            for (int i = 0; i < d; i++) (inverse ? y : x)[i].e[j] = in[event * d + i];
        }
        for (int step = 0; step < layers; step++) {
            const REAL *w = weights + size * (inverse ? layers - 1 - step : step), *final = w + size - 2L * d * (h + 1);
            const REAL *bias = final + 2L * d * h;
            long from = 0;
            for (int i = 0; i < d; i++) {
                Row p[2];
                if (ends[i] > from) units(w, s, from, ends[i], i, x, &c, hidden, work);
                from = ends[i] > from ? ends[i] : from;
                LANES p[0].e[j] = bias[2 * i];
                LANES p[1].e[j] = bias[2 * i + 1];
                product2(final + 2L * i * h, h, from, hidden, p);
                LANES {
                    REAL raw = p[0].e[j], away = raw < 0 ? -raw : raw;
                    REAL scale = (raw > 0 ? raw : 0) + LOG(1 + EXP(-away)) + s.least;
                    if (inverse)
                        x[i].e[j] = (y[i].e[j] - p[1].e[j]) / scale;
                    else
                        y[i].e[j] = scale * x[i].e[j] + p[1].e[j];
                }
            }
            if (step + 1 < layers) { /* the permutation between layers reverses the order */
                Row *made = inverse ? x : y, *given = inverse ? y : x;
                for (int i = 0; i < d; i++) next[i] = made[d - 1 - i];
                memcpy(given, next, d * sizeof(Row));
            }
        }
        for (int j = 0; j < len; j++)
            for (int i = 0; i < d; i++) out[(start + j) * d + i] = (inverse ? x : y)[i].e[j];
    }
}
