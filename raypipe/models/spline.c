/* Monotonic rational-quadratic spline (Durkan et al. 1906.04032): forward, inverse and gradient of one tile of elements
 * at a time, so that the parameters of an element are read once and every loop over elements vectorises.
 *
 * Compiled by setup.py with -DREAL=float or double and the digest of this file, -DSOURCE. The plain form is
 * `rational_quadratic` of spline.py.
 *
 * A row is one (member, dimension) pair of n elements; its parameters are 3K - 1 rows of n: K widths, K heights, K - 1
 * slopes, all unnormalised. Log-derivatives are summed over the `dims` rows of a member.
 */
#include <math.h>

#define IS_FLOAT (sizeof(REAL) == 4)
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
/* glibc has vector forms of these (libmvec) but tells the compiler only under -ffast-math, which would lose NaNs. */
__attribute__((__simd__("notinbranch"))) extern float expf(float);
__attribute__((__simd__("notinbranch"))) extern float logf(float);
__attribute__((__simd__("notinbranch"))) extern double exp(double);
__attribute__((__simd__("notinbranch"))) extern double log(double);
#endif
#define EXP(v) (IS_FLOAT ? (REAL)expf((float)(v)) : (REAL)exp((double)(v)))
#define LOG(v) (IS_FLOAT ? (REAL)logf((float)(v)) : (REAL)log((double)(v)))
#define SQRT(v) (IS_FLOAT ? (REAL)sqrtf((float)(v)) : (REAL)sqrt((double)(v)))

const char spline_source[] = SOURCE;

#define TILE 64
#define MAX_BINS 64
#define LANES _Pragma("omp simd") for (int j = 0; j < len; j++)

typedef struct {
    int bins;
    REAL bound, scale, least, least_slope, edge;
} Shape;

/* The bin of every element of a tile, and what of the parameters it needs. */
typedef struct {
    REAL exp_w[MAX_BINS][TILE], exp_h[MAX_BINS][TILE], norm_w[TILE], norm_h[TILE];
    REAL x0[TILE], w[TILE], y0[TILE], h[TILE], raw0[TILE], raw1[TILE], below_w[TILE], below_h[TILE], here_w[TILE],
        here_h[TILE], inside[TILE], v[TILE];
    int bin[TILE];
} Tile;

static void softmax(const REAL *u, long n, int len, Shape s, REAL e[][TILE], REAL *norm) {
    REAL top[TILE], inverse = 1 / s.scale;
    LANES top[j] = u[j];
    for (int k = 1; k < s.bins; k++) LANES top[j] = u[k * n + j] > top[j] ? u[k * n + j] : top[j];
    LANES norm[j] = 0;
    for (int k = 0; k < s.bins; k++) {
        LANES e[k][j] = EXP((u[k * n + j] - top[j]) * inverse);
        LANES norm[j] += e[k][j];
    }
    LANES norm[j] = 1 / norm[j];
}

static void locate(const REAL *x, const REAL *p, long n, int len, Shape s, int inverse, Tile *t) {
    const REAL *slopes = p + 2 * s.bins * n;
    REAL gain = 1 - s.least * s.bins, span = 2 * s.bound, cum_w[TILE], cum_h[TILE];
    softmax(p, n, len, s, t->exp_w, t->norm_w);
    softmax(p + s.bins * n, n, len, s, t->exp_h, t->norm_h);
    LANES {
        t->inside[j] = (x[j] > -s.bound) & (x[j] < s.bound);
        REAL v = x[j] < s.bound ? x[j] : s.bound;
        t->v[j] = v > -s.bound ? v : -s.bound;
        t->x0[j] = t->y0[j] = cum_w[j] = cum_h[j] = -s.bound;
        t->here_w[j] = t->exp_w[0][j] * t->norm_w[j];
        t->here_h[j] = t->exp_h[0][j] * t->norm_h[j];
        t->below_w[j] = t->below_h[j] = 0;
        t->raw0[j] = s.edge;
        t->raw1[j] = slopes[j];
        t->bin[j] = 0;
    }
    for (int k = 1; k < s.bins; k++) {
        const REAL *left = slopes + (k - 1) * n, *right = slopes + (k < s.bins - 1 ? k : k - 1) * n;
        int last = k == s.bins - 1;
        LANES {
            cum_w[j] += span * (s.least + gain * t->exp_w[k - 1][j] * t->norm_w[j]);
            cum_h[j] += span * (s.least + gain * t->exp_h[k - 1][j] * t->norm_h[j]);
            int beyond = t->v[j] >= (inverse ? cum_h[j] : cum_w[j]);
            t->x0[j] = beyond ? cum_w[j] : t->x0[j];
            t->y0[j] = beyond ? cum_h[j] : t->y0[j];
            t->below_w[j] = beyond ? t->below_w[j] + t->here_w[j] : t->below_w[j];
            t->below_h[j] = beyond ? t->below_h[j] + t->here_h[j] : t->below_h[j];
            t->here_w[j] = beyond ? t->exp_w[k][j] * t->norm_w[j] : t->here_w[j];
            t->here_h[j] = beyond ? t->exp_h[k][j] * t->norm_h[j] : t->here_h[j];
            t->raw0[j] = beyond ? left[j] : t->raw0[j];
            t->raw1[j] = beyond ? (last ? s.edge : right[j]) : t->raw1[j];
            t->bin[j] = beyond ? k : t->bin[j];
        }
    }
    LANES {
        t->w[j] = span * (s.least + gain * t->here_w[j]);
        t->h[j] = span * (s.least + gain * t->here_h[j]);
    }
}

static inline REAL softplus(REAL v) {
    REAL size = v < 0 ? -v : v;
    return (v > 0 ? v : 0) + LOG(1 + EXP(-size));
}

/* x, y: (rows, n); p: (rows, 3K - 1, n); logs: (rows / dims, n), set. */
void spline_apply(const REAL *x, const REAL *p, REAL *y, REAL *logs, long rows, long dims, long n, int bins,
                  double bound, double scale, double least, double least_slope, double edge, int inverse) {
    Shape s = {bins, bound, scale, least, least_slope, edge};
    long width = 3 * bins - 1;
    Tile t;
    for (long row = 0; row < rows; row++)
        for (long start = 0; start < n; start += TILE) {
            int len = n - start < TILE ? (int)(n - start) : TILE;
            const REAL *xs = x + row * n + start;
            REAL *ys = y + row * n + start, *ls = logs + row / dims * n + start;
            int first = row % dims == 0;
            locate(xs, p + row * width * n + start, n, len, s, inverse, &t);
            LANES {
                REAL d0 = s.least_slope + softplus(t.raw0[j]), d1 = s.least_slope + softplus(t.raw1[j]);
                REAL w = t.w[j], h = t.h[j], slope = h / w, curve = d0 + d1 - 2 * slope, root, out;
                if (inverse) {
                    REAL rise = t.v[j] - t.y0[j], a = rise * curve + h * (slope - d0), b = h * d0 - rise * curve;
                    REAL c = -slope * rise, disc = b * b - 4 * a * c;
                    root = 2 * c / (-b - SQRT(disc > 0 ? disc : 0));
                    out = root * w + t.x0[j];
                } else {
                    root = (t.v[j] - t.x0[j]) / w;
                    out = 0;
                }
                REAL u = root * (1 - root), low = slope + curve * u;
                if (!inverse) out = t.y0[j] + h * (slope * root * root + d0 * u) / low;
                REAL rate = slope * slope * (d1 * root * root + 2 * slope * u + d0 * (1 - root) * (1 - root));
                REAL logd = LOG(rate / (low * low));
                logd = t.inside[j] != 0 ? (inverse ? -logd : logd) : 0;
                ys[j] = t.inside[j] != 0 ? out : xs[j];
                ls[j] = first ? logd : ls[j] + logd;
            }
        }
}

/* Gradient of the forward direction: gy (rows, n) and gl (rows / dims, n) to gx (rows, n) and gp (rows, 3K - 1, n). */
void spline_gradient(const REAL *x, const REAL *p, const REAL *gy, const REAL *gl, REAL *gx, REAL *gp, long rows,
                     long dims, long n, int bins, double bound, double scale, double least, double least_slope,
                     double edge) {
    Shape s = {bins, bound, scale, least, least_slope, edge};
    long width = 3 * bins - 1;
    REAL factor = 2 * s.bound * (1 - s.least * bins) / s.scale;
    REAL left_x[TILE], width_x[TILE], mean_x[TILE], left_y[TILE], width_y[TILE], mean_y[TILE], g0[TILE], g1[TILE];
    Tile t;
    for (long row = 0; row < rows; row++)
        for (long start = 0; start < n; start += TILE) {
            int len = n - start < TILE ? (int)(n - start) : TILE;
            const REAL *gys = gy + row * n + start, *gls = gl + row / dims * n + start;
            REAL *gxs = gx + row * n + start, *gps = gp + row * width * n + start;
            locate(x + row * n + start, p + row * width * n + start, n, len, s, 0, &t);
            LANES {
                REAL raw0 = t.raw0[j], raw1 = t.raw1[j], in = t.inside[j], gout = gys[j] * in, glog = gls[j] * in;
                REAL d0 = s.least_slope + softplus(raw0), d1 = s.least_slope + softplus(raw1);
                REAL w = t.w[j], h = t.h[j], slope = h / w, curve = d0 + d1 - 2 * slope;
                REAL root = (t.v[j] - t.x0[j]) / w, rest = 1 - root, u = root * rest, turn = rest - root;
                REAL high = slope * root * root + d0 * u, low = slope + curve * u;
                REAL rate = d1 * root * root + 2 * slope * u + d0 * rest * rest; /* over slope^2 */
                REAL ghigh = gout * h / low, glow = -(gout * h * high / low + 2 * glog) / low, grate = glog / rate;
                REAL gslope = ghigh * root * root + glow * (1 - 2 * u) + 2 * glog / slope + grate * 2 * u;
                REAL groot = ghigh * (2 * slope * root + d0 * turn) + glow * curve * turn +
                             grate * 2 * (d1 * root + slope * turn - d0 * rest);
                REAL gw = -(groot * root + gslope * slope) / w, gh = gout * high / low + gslope / w;
                gxs[j] = in != 0 ? groot / w : gys[j];
                left_x[j] = -groot / w;
                width_x[j] = gw;
                mean_x[j] = left_x[j] * t.below_w[j] + gw * t.here_w[j];
                left_y[j] = gout;
                width_y[j] = gh;
                mean_y[j] = gout * t.below_h[j] + gh * t.here_h[j];
                g0[j] = (ghigh * u + glow * u + grate * rest * rest) / (1 + EXP(-raw0));
                g1[j] = (glow * u + grate * root * root) / (1 + EXP(-raw1));
            }
            for (int k = 0; k < bins; k++) {
                REAL *to_w = gps + k * n, *to_h = gps + (bins + k) * n;
                LANES {
                    int bin = t.bin[j];
                    REAL at_x = k < bin ? left_x[j] : (k == bin ? width_x[j] : 0);
                    REAL at_y = k < bin ? left_y[j] : (k == bin ? width_y[j] : 0);
                    to_w[j] = factor * t.exp_w[k][j] * t.norm_w[j] * (at_x - mean_x[j]);
                    to_h[j] = factor * t.exp_h[k][j] * t.norm_h[j] * (at_y - mean_y[j]);
                }
            }
            for (int k = 0; k < bins - 1; k++) {
                REAL *to = gps + (2 * bins + k) * n;
                LANES to[j] = t.bin[j] == k ? g1[j] : (t.bin[j] == k + 1 ? g0[j] : 0);
            }
        }
}
