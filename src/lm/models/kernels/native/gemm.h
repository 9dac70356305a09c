/* C = A B or C += A B for any size, blocked for the caches (Goto & van de Geijn 2008). C and B are of
 * REAL, so that sums keep their precision and a weight needs no copy in low precision: B is rounded
 * as it is packed.
 *
 * All threads together pack a block of B. Of that, a panel of up to 4 column groups stays in a core's
 * second cache while rows of A pass by. A is read where it lies if its rows do; else it is packed
 * too, by whoever multiplies it, a block of rows at a time. Every element of C is one sum in the order
 * of the inner dimension, whichever thread adds it.
 */

typedef struct {
    long rows, columns, inner;           /* A [rows, inner], B [inner, columns] */
    long a_row, a_inner;                 /* from an element to the next; one of the two is 1 */
    long packs_a;                        /* a_row is 1 */
    long b_inner, c_row;                 /* likewise; the other one of B and of C is 1 */
    long add;                            /* to what is in C and `sums` */
    long row_parts, column_parts;        /* the threads' grid over C */
    long row_block, inner_block;
    long a_space;                        /* elements of `packed_a` for each part */
    const OPERAND *a;
    const REAL *b;
    REAL *c;
    const REAL *factors;                 /* [inner] or null */
    REAL *sums;                          /* [rows]: A factors; only with an A that is packed */
    OPERAND *packed_a;                   /* [parts, a_space] */
    OPERAND *packed_b;                   /* column groups × group_size(inner_block) */
} gemm_args;

/* Add a packed block of A times the factors to the sums. */
static void add_factored(
    REAL *sums, const OPERAND *packed, const REAL *factors, long inner, long rows
) {
    for (long i = 0; i < rows; i += LANES, packed += group_size(inner)) {
        const long n = at_most(rows - i, LANES);
        vec sum = load(sums + i, n);
        for (long k = 0; k < inner; k += PAIR) {
            vec words;
            memcpy(&words, packed + k * LANES, sizeof words);
#ifdef BF16
            const bits pairs = (bits)words;
            sum += (vec)(pairs << 16) * factors[k];
            if (k + 1 < inner) sum += (vec)(pairs & 0xffff0000u) * factors[k + 1];
#else
            sum += words * factors[k];
#endif
        }
        store(sums + i, sum, n);
    }
}

/* One panel times `height` rows of A from `row` on. */
INLINE void panel(
    const gemm_args *s, const OPERAND *packed_a, const OPERAND *panel,
    long row, long height, long k, long inner, long group, long width
) {
    const long block = group_size(inner);
    for (long i = 0, rows; i < height; i += rows) {
        vec sum[ROWS][4];
        if (s->packs_a) {
            const long lane = i % LANES;
            rows = rows_at(lane, at_most(LANES, height - i + lane));
            multiply(rows, width, packed_a + i / LANES * block + lane * PAIR, PAIR, PAIR * LANES,
                     panel, block, inner, sum);
        } else {
            rows = rows_at(i, height);
            multiply(rows, width, s->a + (row + i) * s->a_row + k, s->a_row, PAIR,
                     panel, block, inner, sum);
        }
        for (long r = 0; r < rows; r++)
            for (long g = 0; g < width; g++) {
                const long column = (group + g) * LANES, n = at_most(s->columns - column, LANES);
                REAL *c = s->c + (row + i + r) * s->c_row + column;
                if (k > 0 || s->add) sum[r][g] += load(c, n);
                store(c, sum[r][g], n);
            }
    }
}

/* What inner elements from k on add to a part of C, and to the sums if they are `summed` here. */
static void gemm_part(
    const gemm_args *s, range rows, range groups, long k, int summed, OPERAND *packed_a
) {
    const long inner = at_most(s->inner - k, s->inner_block), size = group_size(inner);
    for (long row = rows.begin, height; row < rows.end; row += height) {
        height = at_most(rows.end - row, s->row_block);
        if (s->packs_a)
            pack_columns(packed_a, s->a, 0, row + k * s->a_inner, inner, s->a_inner, height);
        if (summed) {
            for (long i = row; k == 0 && !s->add && i < row + height; i++) s->sums[i] = 0;
            add_factored(s->sums + row, packed_a, s->factors + k, inner, height);
        }
        for (long group = groups.begin, width; group < groups.end; group += width) {
            width = even_part(groups.end - group, 4);
            panel(s, packed_a, s->packed_b + group * size, row, height, k, inner, group, width);
        }
    }
}

void gemm(const gemm_args *s) {
    const long parts = s->row_parts * s->column_parts;
    const long row_groups = groups_of(s->rows), column_groups = groups_of(s->columns);
    barrier_t barrier = {0, 0};
    PARALLEL(parts) {
        for (long k = 0; k < s->inner; k += s->inner_block) {
            const long inner = at_most(s->inner - k, s->inner_block);
            const range mine = share_of(column_groups);
            pack_columns(s->packed_b + mine.begin * group_size(inner), s->b, 1,
                         k * s->b_inner + mine.begin * LANES, inner, s->b_inner,
                         at_most(mine.end * LANES, s->columns) - mine.begin * LANES);
            wait_for_all(&barrier);
            for (long part = thread(); part < parts; part += omp_get_num_threads()) {
                const long i = part / s->column_parts, j = part % s->column_parts;
                const range rows = {
                    row_groups * i / s->row_parts * LANES,
                    at_most(row_groups * (i + 1) / s->row_parts * LANES, s->rows),
                };
                const range groups = {
                    column_groups * j / s->column_parts, column_groups * (j + 1) / s->column_parts,
                };
                gemm_part(s, rows, groups, k, s->factors && j == 0,
                                s->packed_a + part * s->a_space);
            }
            wait_for_all(&barrier);
        }
    }
}
