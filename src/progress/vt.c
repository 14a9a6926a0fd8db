/* A very small terminal, enough to show the last lines of a step as they would look: carriage returns, wrapping, backspace,
 * tabs, cursor moves and erasing. Colours and all else are dropped. A line feed also returns the carriage. */
#include "progress/model.h"

#include <string.h>

struct vt {
	size_t rows, cols, x, y;
	uint32_t *cell;
	enum { TEXT, ESC, CSI, OSC } state;
	unsigned arg[4];
	size_t n_args;
	uint32_t rune; /* UTF-8 being read */
	unsigned more;
};

static uint32_t *row_at(struct vt *v, size_t y) { return v->cell + y * v->cols; }

static void clear(struct vt *v, size_t y, size_t from, size_t to)
{
	for (size_t x = from; x < to && x < v->cols; x++) row_at(v, y)[x] = ' ';
}

struct vt *vt_new(size_t rows, size_t cols)
{
	struct vt *v = xnew(struct vt);
	v->rows = max_of(min_of(rows, VT_ROWS_MAX), 1);
	v->cols = max_of(min_of(cols, 4096), 1);
	v->cell = xreallocarray(NULL, v->rows * v->cols, sizeof *v->cell);
	for (size_t y = 0; y < v->rows; y++) clear(v, y, 0, v->cols);
	return v;
}

void vt_free(struct vt *v)
{
	if (!v) return;
	free(v->cell);
	free(v);
}

void vt_resize(struct vt *v, size_t rows, size_t cols)
{
	struct vt *n = vt_new(rows, cols);
	if (n->rows == v->rows && n->cols == v->cols) {
		vt_free(n);
		return;
	}
	size_t skip = v->y + 1 > n->rows ? v->y + 1 - n->rows : 0;
	for (size_t y = 0; y < n->rows && y + skip < v->rows; y++)
		memcpy(row_at(n, y), row_at(v, y + skip), min_of(n->cols, v->cols) * sizeof *v->cell);
	n->x = min_of(v->x, n->cols);
	n->y = min_of(v->y - skip, n->rows - 1);
	free(v->cell);
	v->cell = n->cell;
	v->rows = n->rows;
	v->cols = n->cols;
	v->x = n->x;
	v->y = n->y;
	free(n);
}

static void line_feed(struct vt *v)
{
	v->x = 0;
	if (++v->y < v->rows) return;
	memmove(v->cell, row_at(v, 1), (v->rows - 1) * v->cols * sizeof *v->cell);
	v->y = v->rows - 1;
	clear(v, v->y, 0, v->cols);
}

static void put(struct vt *v, uint32_t rune)
{
	if (v->x >= v->cols) line_feed(v);
	row_at(v, v->y)[v->x++] = rune;
}

static void control(struct vt *v, uint8_t c)
{
	switch (c) {
	case '\n': line_feed(v); break;
	case '\r': v->x = 0; break;
	case '\b': v->x -= v->x > 0; break;
	case '\t':
		do put(v, ' ');
		while (v->x % 8 && v->x < v->cols);
		break;
	case 0x1b: v->state = ESC; break;
	}
}

static void erase_line(struct vt *v, unsigned how) { clear(v, v->y, how == 0 ? v->x : 0, how == 1 ? v->x + 1 : v->cols); }

static void erase_screen(struct vt *v, unsigned how)
{
	erase_line(v, how);
	for (size_t y = 0; y < v->rows; y++)
		if (how == 2 || (how == 0 && y > v->y) || (how == 1 && y < v->y)) clear(v, y, 0, v->cols);
}

static void csi(struct vt *v, uint8_t c)
{
	unsigned n = v->n_args && v->arg[0] ? v->arg[0] : 1, m = v->n_args > 1 && v->arg[1] ? v->arg[1] : 1;
	switch (c) {
	case 'A': v->y -= min_of(v->y, n); break;
	case 'B': v->y = min_of(v->y + n, v->rows - 1); break;
	case 'C': v->x = min_of(v->x + n, v->cols - 1); break;
	case 'D': v->x -= min_of(v->x, n); break;
	case 'G': v->x = min_of(n - 1, v->cols - 1); break;
	case 'H':
	case 'f':
		v->y = min_of(n - 1, v->rows - 1);
		v->x = min_of(m - 1, v->cols - 1);
		break;
	case 'J': erase_screen(v, v->n_args ? v->arg[0] : 0); break;
	case 'K': erase_line(v, v->n_args ? v->arg[0] : 0); break;
	}
}

static void in_csi(struct vt *v, uint8_t c)
{
	if (c >= '0' && c <= '9') {
		if (!v->n_args) v->n_args = 1;
		unsigned *a = &v->arg[v->n_args - 1];
		*a = min_of(*a * 10 + (c - '0'), 9999u);
	} else if (c == ';') {
		v->n_args = min_of(max_of(v->n_args, 1) + 1, array_len(v->arg));
		v->arg[v->n_args - 1] = 0;
	} else if (c >= 0x40 && c <= 0x7e) {
		csi(v, c);
		v->state = TEXT;
	}
}

static void in_text(struct vt *v, uint8_t c)
{
	if (v->more && (c & 0xc0) == 0x80) {
		v->rune = v->rune << 6 | (c & 0x3f);
		if (--v->more == 0)
			put(v, v->rune >= 0xa0 && v->rune <= 0x10ffff && (v->rune & 0xfffff800) != 0xd800 ? v->rune : 0xfffd);
		return;
	}
	v->more = 0;
	if (c < 0x20 || c == 0x7f) {
		control(v, c);
	} else if (c < 0x80) {
		put(v, c);
	} else if (c >= 0xc2 && c <= 0xf4) {
		v->more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
		v->rune = c & (0x3f >> v->more);
	} else {
		put(v, 0xfffd);
	}
}

void vt_write(struct vt *v, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint8_t c = p[i];
		switch (v->state) {
		case TEXT: in_text(v, c); break;
		case CSI: in_csi(v, c); break;
		case OSC:
			if (c == 7 || c == 0x1b) v->state = c == 7 ? TEXT : ESC;
			break;
		case ESC:
			v->state = c == '[' ? CSI : c == ']' ? OSC : TEXT;
			v->n_args = 0;
			memset(v->arg, 0, sizeof v->arg);
			break;
		}
	}
}

size_t vt_rows(const struct vt *v) { return v->rows; }

static size_t row_length(const struct vt *v, size_t y)
{
	size_t n = v->cols;
	while (n > 0 && v->cell[y * v->cols + n - 1] == ' ') n--;
	return n;
}

size_t vt_used(const struct vt *v)
{
	size_t n = 0;
	for (size_t y = 0; y < v->rows; y++) n += row_length(v, y) > 0;
	return n;
}

static void add_rune(struct buf *out, uint32_t r)
{
	if (r < 0x80) {
		buf_addc(out, (char)r);
		return;
	}
	int more = r >= 0x10000 ? 3 : r >= 0x800 ? 2 : 1;
	buf_addc(out, (char)((0xf0 << (3 - more) & 0xff) | r >> 6 * more));
	while (more-- > 0) buf_addc(out, (char)(0x80 | (r >> 6 * more & 0x3f)));
}

bool vt_line(const struct vt *v, size_t row, struct buf *out)
{
	if (row >= v->rows || !row_length(v, row)) return false;
	for (size_t x = 0; x < v->cols; x++) add_rune(out, v->cell[row * v->cols + x]);
	return true;
}
