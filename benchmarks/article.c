/* The training of benchmarks/native.py by hand: an MLP INPUTS-HIDDEN-HIDDEN-OUTPUTS with ReLU and sigmoid outputs, binary
 * cross-entropy, Adam, batches of 32 in a new order each epoch; float32, one thread.
 *
 * Usage: article FEATURES LABELS ROWS EPOCHS RATE SEED REPEATS, files of float32, row after row.
 * Prints "seconds loss" for each repeat: wall time of initialisation and all epochs, mean loss of the last epoch.
 *
 * Activations lie with the 32 rows of the batch side by side (unit after unit), two vectors of 16: forward and backward
 * products then hold tiles of 10 units x 2 vectors in registers and waste nothing on 100 units. The gradient of the weights
 * sums over the batch: there the units of the upper layer lie side by side, 100 of them in 7 vectors.
 */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { INPUTS = 10, HIDDEN = 100, OUTPUTS = 10, BATCH = 32, LANES = 16 };
enum { WIDE = 112, NARROW = 16 }; /* HIDDEN and OUTPUTS in whole vectors: distance of two rows of weights */

typedef float vector __attribute__((vector_size(LANES * sizeof(float)), may_alias));
typedef int32_t bits __attribute__((vector_size(LANES * sizeof(float)), may_alias));

/* One array holds all weights, so that Adam is one loop; what is added to fill vectors stays 0. */
enum {
    W1 = 0,
    B1 = W1 + INPUTS * WIDE,
    W2 = B1 + WIDE,
    B2 = W2 + HIDDEN * WIDE,
    W3 = B2 + WIDE,
    B3 = W3 + HIDDEN * NARROW,
    PARAMS = B3 + NARROW
};
static float params[PARAMS] __attribute__((aligned(64)));
static float gradients[PARAMS] __attribute__((aligned(64)));
static float first[PARAMS] __attribute__((aligned(64)));
static float second[PARAMS] __attribute__((aligned(64)));

/* Units x rows of the batch. */
static float x[INPUTS * BATCH] __attribute__((aligned(64)));
static float h1[HIDDEN * BATCH] __attribute__((aligned(64)));
static float h2[HIDDEN * BATCH] __attribute__((aligned(64)));
static float out[OUTPUTS * BATCH] __attribute__((aligned(64)));
static float y[OUTPUTS * BATCH] __attribute__((aligned(64)));
static float d2[HIDDEN * BATCH] __attribute__((aligned(64)));
static float d1[HIDDEN * BATCH] __attribute__((aligned(64)));
/* Rows of the batch x units. */
static float turned[BATCH * WIDE] __attribute__((aligned(64)));

static uint64_t state;

static uint64_t draw(void) { /* splitmix64 */
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static float uniform(void) { return ((float)(draw() >> 40) + 0.5f) / 16777216.0f; }

static float normal(void) { return sqrtf(-2.0f * logf(uniform())) * cosf(6.2831853f * uniform()); }

#define INLINE static inline __attribute__((always_inline))

/* above[unit] = sum over inputs i of w[i * down + unit * across] below[i], 10 units at a time, and bias, ReLU or a mask. */
enum { LINEAR, RELU, WHERE_POSITIVE };

INLINE void layer(const float *w, int down, int across, const float *below, int inputs, const float *bias, const float *mask,
                  float *above, int units, int vectors, int kind) {
    for (int unit = 0; unit < units; unit += 10) {
        vector sum[10][2];
        for (int u = 0; u < 10; u++)
            for (int v = 0; v < vectors; v++)
                sum[u][v] = (vector){} + (bias ? bias[unit + u] : 0.0f);
        for (int i = 0; i < inputs; i++) {
            const vector *b = (const vector *)(below + i * BATCH);
            const float *row = w + i * down + unit * across;
#pragma GCC unroll 10
            for (int u = 0; u < 10; u++)
                for (int v = 0; v < vectors; v++)
                    sum[u][v] += row[u * across] * b[v];
        }
        for (int u = 0; u < 10; u++)
            for (int v = 0; v < vectors; v++) {
                vector *to = (vector *)(above + (unit + u) * BATCH) + v;
                const vector *seen = (const vector *)(mask + (unit + u) * BATCH) + v;
                vector zero = {};
                if (kind == RELU)
                    *to = (vector)((sum[u][v] > zero) & (bits)sum[u][v]);
                else if (kind == WHERE_POSITIVE)
                    *to = (vector)((*seen > zero) & (bits)sum[u][v]);
                else
                    *to = sum[u][v];
            }
    }
}

/* dw[i] = sum over rows r of below[i][r] turned[r], `tile` inputs at a time; db = sum over rows of turned[r]. */
INLINE void weights(const float *below, int inputs, const float *turned, int width, float *dw, float *db, int rows, int tile) {
    enum { MOST = 7 };
    int vectors = width / LANES;
    for (int i = 0; i < inputs; i += tile) {
        vector sum[10][MOST] = {};
        for (int r = 0; r < rows; r++) {
            const vector *t = (const vector *)(turned + r * width);
#pragma GCC unroll 10
            for (int k = 0; k < tile; k++)
#pragma GCC unroll 7
                for (int v = 0; v < vectors; v++)
                    sum[k][v] += below[(i + k) * BATCH + r] * t[v];
        }
        for (int k = 0; k < tile; k++)
            for (int v = 0; v < vectors; v++)
                ((vector *)(dw + (i + k) * width))[v] = sum[k][v];
    }
    vector sum[MOST] = {};
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            sum[v] += ((const vector *)(turned + r * width))[v];
    for (int v = 0; v < vectors; v++)
        ((vector *)db)[v] = sum[v];
}

INLINE void turn(const float *units_by_rows, int units, int width, int rows) {
    for (int r = 0; r < rows; r++)
        for (int u = 0; u < units; u++)
            turned[r * width + u] = units_by_rows[u * BATCH + r];
}

/* Log-odds in `out` become their gradients; returns the mean loss. */
INLINE float cross_entropy(int rows) {
    float loss = 0.0f, share = 1.0f / (float)(rows * OUTPUTS);
    for (int u = 0; u < OUTPUTS; u++)
        for (int r = 0; r < BATCH; r++) {
            float z = out[u * BATCH + r], e = expf(-fabsf(z)), weight = r < rows ? share : 0.0f;
            float odds = z > 0.0f ? 1.0f : e;
            loss += weight * (fmaxf(z, 0.0f) - z * y[u * BATCH + r] + logf(1.0f + e));
            out[u * BATCH + r] = weight * (odds / (1.0f + e) - y[u * BATCH + r]);
        }
    return loss;
}

INLINE void adam(float rate, int step) {
    float one = 1.0f / (1.0f - powf(0.9f, (float)step)), two = 1.0f / (1.0f - powf(0.999f, (float)step));
    for (int i = 0; i < PARAMS; i++) {
        float g = gradients[i];
        float m = first[i] = 0.9f * first[i] + 0.1f * g;
        float v = second[i] = 0.999f * second[i] + 0.001f * g * g;
        params[i] -= rate * (m * one) / (sqrtf(v * two) + 1e-8f);
    }
}

/* One step on `rows` rows in 1 or 2 vectors of 16; returns the mean loss. */
INLINE float step_on(int rows, int vectors) {
    layer(params + W1, WIDE, 1, x, INPUTS, params + B1, 0, h1, HIDDEN, vectors, RELU);
    layer(params + W2, WIDE, 1, h1, HIDDEN, params + B2, 0, h2, HIDDEN, vectors, RELU);
    layer(params + W3, NARROW, 1, h2, HIDDEN, params + B3, 0, out, OUTPUTS, vectors, LINEAR);
    float loss = cross_entropy(rows);
    layer(params + W3, 1, NARROW, out, OUTPUTS, 0, h2, d2, HIDDEN, vectors, WHERE_POSITIVE);
    layer(params + W2, 1, WIDE, d2, HIDDEN, 0, h1, d1, HIDDEN, vectors, WHERE_POSITIVE);
    turn(out, OUTPUTS, NARROW, rows);
    weights(h2, HIDDEN, turned, NARROW, gradients + W3, gradients + B3, rows, 10);
    memset(turned, 0, sizeof turned);
    turn(d2, HIDDEN, WIDE, rows);
    weights(h1, HIDDEN, turned, WIDE, gradients + W2, gradients + B2, rows, 4);
    turn(d1, HIDDEN, WIDE, rows);
    weights(x, INPUTS, turned, WIDE, gradients + W1, gradients + B1, rows, 2);
    return loss;
}

static __attribute__((noinline)) float step_full(void) { return step_on(BATCH, 2); }
static __attribute__((noinline)) float step_rest(int rows) { return rows > LANES ? step_on(rows, 2) : step_on(rows, 1); }

static void start(float *w, int inputs, int outputs, int width) { /* variance 1 / inputs, biases 0 */
    for (int i = 0; i < inputs; i++)
        for (int o = 0; o < outputs; o++)
            w[i * width + o] = normal() / sqrtf((float)inputs);
}

static float train(const float *features, const float *labels, int rows, int epochs, float rate, uint64_t seed) {
    int *order = malloc(sizeof(int) * (size_t)rows), step = 0;
    float loss = 0.0f;
    state = seed;
    memset(params, 0, sizeof params);
    memset(first, 0, sizeof first);
    memset(second, 0, sizeof second);
    memset(turned, 0, sizeof turned);
    start(params + W1, INPUTS, HIDDEN, WIDE);
    start(params + W2, HIDDEN, HIDDEN, WIDE);
    start(params + W3, HIDDEN, OUTPUTS, NARROW);
    for (int r = 0; r < rows; r++)
        order[r] = r;
    for (int epoch = 0; epoch < epochs; epoch++) {
        loss = 0.0f;
        for (int r = rows - 1; r > 0; r--) {
            int other = (int)(draw() % (uint64_t)(r + 1)), kept = order[r];
            order[r] = order[other];
            order[other] = kept;
        }
        for (int begin = 0; begin < rows; begin += BATCH) {
            int count = rows - begin < BATCH ? rows - begin : BATCH;
            for (int r = 0; r < BATCH; r++) {
                int row = order[begin + (r < count ? r : 0)];
                for (int i = 0; i < INPUTS; i++)
                    x[i * BATCH + r] = features[row * INPUTS + i];
                for (int o = 0; o < OUTPUTS; o++)
                    y[o * BATCH + r] = labels[row * OUTPUTS + o];
            }
            loss += count == BATCH ? step_full() : step_rest(count);
            adam(rate, ++step);
        }
    }
    free(order);
    return loss / (float)((rows + BATCH - 1) / BATCH);
}

static float *read_floats(const char *path, size_t count) {
    float *found = malloc(count * sizeof(float));
    FILE *file = fopen(path, "rb");
    if (!file || fread(found, sizeof(float), count, file) != count) {
        fprintf(stderr, "%s must have %zu numbers\n", path, count);
        exit(1);
    }
    fclose(file);
    return found;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

int main(int count, char **words) {
    if (count != 8) {
        fprintf(stderr, "usage: %s FEATURES LABELS ROWS EPOCHS RATE SEED REPEATS\n", words[0]);
        return 1;
    }
    int rows = atoi(words[3]), epochs = atoi(words[4]), repeats = atoi(words[7]);
    float *features = read_floats(words[1], (size_t)rows * INPUTS), *labels = read_floats(words[2], (size_t)rows * OUTPUTS);
    for (int repeat = 0; repeat < repeats; repeat++) {
        double began = now();
        float loss = train(features, labels, rows, epochs, (float)atof(words[5]), (uint64_t)(atoi(words[6]) + repeat));
        printf("%.6f %.6f\n", now() - began, loss);
    }
    return 0;
}
