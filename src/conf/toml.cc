/* The one C++ file: toml++ parses, and its tree is copied into plain C structs with positions. No rule of the
 * configuration is in here. Bounded by the size of the text (conf_load reads at most 4 MiB) and toml++'s own depth limit. */
#include <toml++/toml.h>

#include <cstdlib>
#include <cstring>
#include <new>
#include <sstream>
#include <stdexcept>
#include <string>

#include "conf/internal.h"

static char *copy(std::string_view s)
{
	char *p = static_cast<char *>(std::malloc(s.size() + 1));
	if (!p) throw std::bad_alloc();
	std::memcpy(p, s.data(), s.size());
	p[s.size()] = 0;
	return p;
}

static const char *tag_of(const toml::node &n)
{
	switch (n.type()) {
	case toml::node_type::floating_point: return "float";
	case toml::node_type::date: return "date-local";
	case toml::node_type::time: return "time-local";
	case toml::node_type::date_time: return n.as_date_time()->get().offset ? "datetime" : "datetime-local";
	default: return "string";
	}
}

static void put_text(struct toml_node *t, std::string_view s)
{
	t->str = copy(s);
	t->str_len = s.size();
}

static const char *type_name(const toml::node &n)
{
	switch (n.type()) {
	case toml::node_type::string: return "a string";
	case toml::node_type::integer: return "an integer";
	case toml::node_type::floating_point: return "a float";
	case toml::node_type::boolean: return "a boolean";
	case toml::node_type::array: return "an array";
	case toml::node_type::table: return "a table";
	default: return "a date or time";
	}
}

enum { DEPTH_MAX = 64 };

/* Copy n to *at. Each node hangs in the tree before its parts are copied, so after a throw the root frees them all. */
static struct toml_node **convert(struct toml_node **at, const toml::node &n, const toml::key *key, int depth)
{
	if (depth > DEPTH_MAX) throw std::runtime_error("tables are nested too deeply");
	struct toml_node *t = *at = static_cast<struct toml_node *>(std::calloc(1, sizeof *t));
	if (!t) throw std::bad_alloc();
	const toml::source_position &p = key ? key->source().begin : n.source().begin;
	t->kind = TOML_OTHER;
	t->type_name = type_name(n);
	t->line = p.line;
	t->column = p.column;
	if (key) {
		t->key = copy(key->str());
		t->key_len = key->str().size();
	}
	struct toml_node **tail = &t->kids;
	if (auto s = n.as_string()) {
		t->kind = TOML_STR;
		put_text(t, s->get());
		if (s->get().find('\0') != std::string::npos)
			t->kind = TOML_OTHER, t->tag = "string", t->type_name = "a string with a NUL";
	} else if (auto i = n.as_integer()) {
		t->kind = TOML_INT;
		t->num = i->get();
	} else if (auto b = n.as_boolean()) {
		t->kind = TOML_BOOL;
		t->num = b->get();
	} else if (auto a = n.as_array()) {
		t->kind = TOML_ARRAY;
		for (auto &e : *a) tail = convert(tail, e, nullptr, depth + 1);
	} else if (auto tab = n.as_table()) {
		t->kind = TOML_TABLE;
		for (auto &&[k, v] : *tab) tail = convert(tail, v, &k, depth + 1);
	} else {
		std::ostringstream text;
		text.precision(17);
		if (auto f = n.as_floating_point())
			text << toml::toml_formatter{*f};
		else if (auto d = n.as_date())
			text << d->get();
		else if (auto d = n.as_time())
			text << d->get();
		else if (auto d = n.as_date_time())
			text << d->get();
		t->tag = tag_of(n);
		put_text(t, text.str());
	}
	return &t->next;
}

extern "C" struct toml_node *toml_parse_text(const char *text, size_t n, char **msg, unsigned *line, unsigned *column)
{
	struct toml_node *root = nullptr;
	try {
		toml::table t = toml::parse(std::string_view(text, n));
		convert(&root, t, nullptr, 0);
		return root;
	} catch (const toml::parse_error &e) {
		*line = e.source().begin.line;
		*column = e.source().begin.column;
		*msg = strdup(std::string(e.description()).c_str());
	} catch (const std::exception &e) {
		*line = *column = 0;
		*msg = strdup(e.what());
	}
	toml_free(root);
	return nullptr;
}

extern "C" void toml_free(struct toml_node *t)
{
	while (t) {
		struct toml_node *next = t->next;
		toml_free(t->kids);
		std::free(t->key);
		std::free(t->str);
		std::free(t);
		t = next;
	}
}
