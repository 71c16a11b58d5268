/* Gradient-boosted trees for two classes, by histograms of at most 256 bins a feature: one small model on one thread.
 *
 * The algorithm is that of xgboost's `hist` (Chen and Guestrin 1603.02754, equations 5 to 7): logistic loss, weighted
 * gradients, L2-regularised leaves, children's histograms by subtraction, growth best first up to a number of leaves.
 * What a thousand small fits gain: events that a tree does not see are not touched by its histograms (xgboost sets
 * their gradients to zero and carries them along), bins are bytes, and nothing is dispatched to threads.
 *
 * Compiled by raypipe/models/native.py; called by raypipe/models/trees.py.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
/* As in spline.c: glibc's vector forms. */
__attribute__((__simd__("notinbranch"))) extern float expf(float);
__attribute__((__simd__("notinbranch"))) extern float logf(float);
#endif

#define BINS 256
#define LEAST_GAIN 1e-6 /* xgboost's kRtEps */

typedef double Pair __attribute__((vector_size(16))); /* sums of gradients and of second derivatives */

typedef struct {
    long from, to; /* rows of this leaf */
    int node, depth, feature, bin;
    double gain;
    Pair sum, left;
    Pair *hist;
} Leaf;

typedef struct {
    const uint8_t *bins;
    const int32_t *counts;
    int features;
    double lambda, least;
} Grid;

static inline double score(Pair s, double lambda) { return s[0] * s[0] / (s[1] + lambda); }

static void fill(Grid g, const float *slopes, const int32_t *rows, long count, Pair *hist) {
    memset(hist, 0, (size_t)g.features * BINS * sizeof(Pair));
    for (long i = 0; i < count; i++) {
        long row = rows[i];
        const uint8_t *b = g.bins + row * g.features;
        Pair value = {slopes[2 * row], slopes[2 * row + 1]};
        for (int f = 0; f < g.features; f++) hist[f * BINS + b[f]] += value;
    }
}

/* The best split of a leaf: events of bins up to `bin` go left. */
static void split(Grid g, Leaf *leaf) {
    double own = score(leaf->sum, g.lambda);
    leaf->gain = 0;
    for (int f = 0; f < g.features; f++) {
        const Pair *hist = leaf->hist + f * BINS;
        Pair left = {0, 0};
        for (int b = 0; b < g.counts[f] - 1; b++) {
            left += hist[b];
            Pair right = leaf->sum - left;
            if (left[1] < g.least || right[1] < g.least) continue;
            double gain = score(left, g.lambda) + score(right, g.lambda) - own;
            if (gain > leaf->gain) leaf->gain = gain, leaf->feature = f, leaf->bin = b, leaf->left = left;
        }
    }
}

static long partition(Grid g, const Leaf *leaf, int32_t *rows, int32_t *spare) {
    const uint8_t *bins = g.bins + leaf->feature;
    long l = leaf->from, r = 0;
    int bin = leaf->bin;
    for (long i = leaf->from; i < leaf->to; i++) {
        int32_t row = rows[i];
        int right = bins[(long)row * g.features] > bin;
        rows[l] = row;
        spare[r] = row;
        l += !right;
        r += right;
    }
    memcpy(rows + l, spare, r * sizeof(int32_t));
    return l;
}

static inline uint64_t mixed(uint64_t z) { /* splitmix64 */
    z += 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

static inline float walk(const uint8_t *b, const int32_t *feature, const int32_t *bin, const int32_t *left,
                         const float *value) {
    int node = 0;
    while (left[node] >= 0) node = left[node] + (b[feature[node]] > bin[node]);
    return value[node];
}

/* Weighted logistic loss. */
static double loss(const float *margin, const float *y, const float *w, long n) {
    double sum = 0, weight = 0;
#pragma omp simd reduction(+ : sum, weight)
    for (long i = 0; i < n; i++) {
        float m = y[i] > 0 ? -margin[i] : margin[i], size = m < 0 ? -m : m;
        sum += w[i] * ((m > 0 ? m : 0) + logf(1 + expf(-size)));
        weight += w[i];
    }
    return sum / weight;
}

/* bins: (n, features); y, w: (n); the same of validation events, nv = 0 for none. Returns the number of trees to use.
 * Trees: (rounds, 2 leaves - 1) each; left < 0 marks a leaf, the right child follows the left one. */
int trees_train(const uint8_t *bins, const float *y, const float *w, long n, const uint8_t *vbins, const float *vy,
                const float *vw, long nv, const int32_t *counts, int features, int rounds, int depth, int leaves,
                int patience, double rate, double subsample, double lambda, double least, double base, uint64_t seed,
                int32_t *feature, int32_t *bin, int32_t *left, float *value) {
    Grid g = {bins, counts, features, lambda, least};
    int nodes = 2 * leaves - 1, best = rounds, live;
    double lowest = INFINITY;
    float *margin = malloc((n + nv + 1) * sizeof(float)), *vmargin = margin + n;
    float *slopes = malloc((2 * n + 1) * sizeof(float));
    int32_t *rows = malloc((2 * n + 2) * sizeof(int32_t)), *spare = rows + n + 1;
    Leaf *open = malloc(leaves * sizeof(Leaf));
    Pair *space = aligned_alloc(64, (size_t)leaves * features * BINS * sizeof(Pair));
    int made = -1;
    if (!margin || !slopes || !rows || !open || !space) goto done;
    for (long i = 0; i < n + nv; i++) margin[i] = (float)base;
    for (made = 0; made < rounds; made++) {
#pragma omp simd
        for (long i = 0; i < n; i++) {
            float p = 1 / (1 + expf(-margin[i])), h = p * (1 - p);
            slopes[2 * i] = (p - y[i]) * w[i];
            slopes[2 * i + 1] = (h < 1e-16f ? 1e-16f : h) * w[i];
        }
        long seen = n, hidden = 0;
        if (subsample < 1) {
            uint64_t start = mixed(seed ^ mixed(made)), bound = (uint64_t)(subsample * 4294967296.0);
            int32_t *rest = spare;
            seen = 0;
            for (long i = 0; i < n; i++) {
                int taken = mixed(start + i) >> 32 < bound;
                rows[seen] = rest[hidden] = (int32_t)i;
                seen += taken;
                hidden += !taken;
            }
            memcpy(rows + seen, rest, hidden * sizeof(int32_t)); /* behind those that are seen; partitions stay before */
        } else
            for (long i = 0; i < n; i++) rows[i] = (int32_t)i;
        int32_t *tf = feature + (long)made * nodes, *tb = bin + (long)made * nodes, *tl = left + (long)made * nodes;
        float *tv = value + (long)made * nodes;
        open[0] = (Leaf){.from = 0, .to = seen, .hist = space};
        fill(g, slopes, rows, seen, space);
        for (int b = 0; b < counts[0]; b++) open[0].sum += space[b];
        split(g, open);
        int used = 1;
        for (live = 1; live < leaves; live++) {
            int top = -1;
            for (int k = 0; k < live; k++)
                if (open[k].gain > LEAST_GAIN && (depth == 0 || open[k].depth < depth) &&
                    (top < 0 || open[k].gain > open[top].gain))
                    top = k;
            if (top < 0) break;
            Leaf *a = open + top, *b = open + live;
            long middle = partition(g, a, rows, spare);
            tf[a->node] = a->feature, tb[a->node] = a->bin, tl[a->node] = used;
            *b = (Leaf){.from = middle, .to = a->to, .node = used + 1, .depth = a->depth + 1, .sum = a->sum - a->left};
            *a = (Leaf){.from = a->from, .to = middle, .node = used, .depth = b->depth, .sum = a->left, .hist = a->hist};
            used += 2;
            if (depth && a->depth >= depth) continue; /* both stay leaves: no histograms */
            b->hist = space + (long)live * features * BINS;
            int less = b->to - b->from < a->to - a->from;
            Pair *small = b->hist, *large = a->hist; /* the larger child's is what the smaller one leaves of the parent's */
            fill(g, slopes, rows + (less ? b->from : a->from), less ? b->to - b->from : a->to - a->from, small);
            for (int k = 0; k < features * BINS; k++) large[k] -= small[k];
            if (!less) a->hist = small, b->hist = large;
            split(g, a);
            split(g, b);
        }
        for (int k = 0; k < live; k++) {
            Leaf *l = open + k;
            tl[l->node] = -1;
            tf[l->node] = tb[l->node] = 0;
            float step = tv[l->node] = l->sum[1] < least ? 0 : (float)(-rate * l->sum[0] / (l->sum[1] + lambda));
            for (long i = l->from; i < l->to; i++) margin[rows[i]] += step;
        }
        for (long i = seen; i < seen + hidden; i++)
            margin[rows[i]] += walk(bins + (long)rows[i] * features, tf, tb, tl, tv);
        if (nv) {
            for (long i = 0; i < nv; i++) vmargin[i] += walk(vbins + i * features, tf, tb, tl, tv);
            double now = loss(vmargin, vy, vw, nv);
            if (now < lowest) lowest = now, best = made + 1;
            if (made + 1 - best >= patience) break;
        }
    }
    made = nv ? best : rounds;
done:
    free(margin), free(slopes), free(rows), free(open), free(space);
    return made;
}

/* The number of cuts (at most 255, rising) up to and including each value: x (n, features) -> bins (n, features). */
void trees_bin(const float *x, long n, int features, const float *cuts, const int32_t *counts, uint8_t *bins) {
    for (int f = 0; f < features; f++) {
        float table[BINS];
        for (int k = 0; k < BINS; k++) table[k] = k < counts[f] - 1 ? cuts[f * (BINS - 1) + k] : INFINITY;
        for (long i = 0; i < n; i++) {
            float v = x[i * features + f];
            int at = 0;
            for (int step = BINS / 2; step; step /= 2) at += table[at + step - 1] <= v ? step : 0;
            bins[i * features + f] = (uint8_t)at;
        }
    }
}

/* Log-odds (n) of events x (n, features). */
void trees_predict(const float *x, long n, int features, const int32_t *feature, const float *threshold,
                   const int32_t *left, const float *value, int trees, int nodes, double base, double *out) {
    enum { TILE = 256 };
    for (long start = 0; start < n; start += TILE) {
        long end = start + TILE < n ? start + TILE : n;
        for (long i = start; i < end; i++) out[i] = base;
        for (long t = 0; t < trees; t++) {
            const int32_t *tf = feature + t * nodes, *tl = left + t * nodes;
            const float *cut = threshold + t * nodes;
            for (long i = start; i < end; i++) {
                int node = 0;
                while (tl[node] >= 0) node = tl[node] + !(x[i * features + tf[node]] < cut[node]);
                out[i] += value[t * nodes + node];
            }
        }
    }
}
