/* A function that goes through much of the C library: numbers to text, matched, sorted, and back to numbers. */
#include <math.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const shape_text = "^[+-][0-9]\\.[0-9]+e[+-][0-9]{2} .* (t|te+xt)$";

static int by_text(const void *left, const void *right) { return strcmp(left, right); }

/* The sum of count numbers, each written as text, matched and read back, rounded. */
__attribute__((export_name("total"))) unsigned total(unsigned count) {
    regex_t shape;
    char (*texts)[64] = calloc(count + 1, sizeof *texts);
    if (texts == NULL || regcomp(&shape, shape_text, REG_EXTENDED | REG_NOSUB) != 0) return 0;
    for (unsigned i = 0; i < count; i++) {
        double x = i + 0.25;
        snprintf(texts[i], sizeof *texts, "%+.6e %x text", sqrt(x) + log1p(x), i);
    }
    qsort(texts, count, sizeof *texts, by_text);
    double sum = 0;
    for (unsigned i = 0; i < count; i++) {
        if (regexec(&shape, texts[i], 0, NULL, 0) == 0) sum += strtod(texts[i], NULL);
    }
    regfree(&shape);
    free(texts);
    return (unsigned)lround(sum);
}
