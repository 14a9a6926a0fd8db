/* slipwayd check-config: what is wrong with a configuration file, what holds, and the manual. It touches nothing and needs no
 * daemon. Exit status 1: the file has an error or a fault. */
#include "daemon/check_config.h"
#include "conf/conf.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

enum mode { CHECK, EFFECTIVE, MANUAL, MAN, DUMP_JSON, USAGE };
enum { INPUT_MAX_BYTES = 4 << 20 };
static const struct {
	const char *flag;
	enum mode mode;
} modes[] = {
	{"--effective", EFFECTIVE}, {"--manual", MANUAL}, {"--man", MAN},
	{"--dump-json", DUMP_JSON}, {"--help", USAGE},    {"-h", USAGE},
};
static const char usage[] =
	"USAGE:\n   slipwayd check-config [--effective] [FLAGS OF slipwayd] [FILE]\n\n"
	"Tells what is wrong with a configuration file (default: the daemon's), one line each, and exits with status 1 when\n"
	"there is anything that the file does not do as it says. Warnings alone are status 0.\n\n"
	"OPTIONS:\n"
	"   --effective  print every value and where it comes from: file and line, flag, environment or default\n"
	"   --manual     print the manual of the file as Markdown (docs/config.md); --man: as slipwayd.toml(5)\n"
	"   --dump-json  print the file as toml-test's tagged JSON (FILE -: standard input)\n";

static int dump_json(const char *file, struct err *e)
{
	_cleanup_buf_ struct buf out = BUF_INIT;
	uint8_t *text = NULL;
	size_t n = 0;
	bool in = !file || strcmp(file, "-") == 0;
	int r = path_read_file(AT_FDCWD, in ? "/dev/stdin" : file, INPUT_MAX_BYTES, &text, &n, e);
	if (r >= 0) r = conf_dump_json((char *)text, n, in ? "stdin" : file, &out, e);
	free(text);
	if (r >= 0) printf("%s\n", buf_str(&out));
	return r;
}

static int check(const struct conf_args *args, bool effective, struct err *e)
{
	static const char *const words[] = {[CONF_WARN] = "warning", [CONF_FAULT] = "error", [CONF_ERROR] = "error"};
	_cleanup_conf_report_ struct conf_report report = {0};
	_cleanup_conf_ struct conf *c = NULL;
	_cleanup_buf_ struct buf out = BUF_INIT;
	struct err mine = ERR_INIT;
	int r = conf_read(args, &c, &report, &mine);
	for (size_t i = 0; i < report.v.n; i++) fprintf(stderr, "%s: %s\n", words[report.v.v[i].level], report.v.v[i].text);
	bool told = conf_report_count(&report, CONF_ERROR) || conf_report_count(&report, CONF_FAULT);
	if (r < 0 && !told) return err_move(e, &mine);
	err_fini(&mine);
	if (c && effective) conf_effective(c, &out);
	fputs(buf_str(&out), stdout);
	if (c && !effective && !told) printf(c->from_file ? "%s: ok\n" : "%s does not exist: the defaults hold\n", c->path);
	return told;
}

/* Our own words are taken out; what is left is for conf_args_parse. */
static int split(int argc, char **argv, enum mode *mode, char **rest, char **file, struct err *e)
{
	int n = 0;
	for (int i = 0; i < argc; i++) {
		bool ours = false;
		for (size_t k = 0; k < array_len(modes) && i > 0; k++)
			if (strcmp(argv[i], modes[k].flag) == 0) *mode = modes[k].mode, ours = true;
		if (!ours) rest[n++] = argv[i];
	}
	if (n > 1 && (rest[n - 1][0] != '-' || !rest[n - 1][1]) && !conf_takes_value(n > 2 ? rest[n - 2] : ""))
		*file = rest[--n];
	rest[n] = NULL;
	return n;
}

int check_config(int argc, char **argv)
{
	struct err e = ERR_INIT;
	struct conf_args args = {0};
	_cleanup_buf_ struct buf out = BUF_INIT;
	_cleanup_free_ char **rest = xcalloc((size_t)argc + 1, sizeof *rest);
	enum mode mode = CHECK;
	char *file = NULL;
	int n = split(argc, argv, &mode, rest, &file, &e), r = 0;
	if (mode == USAGE) buf_adds(&out, usage);
	if (mode == MANUAL) conf_manual(&out);
	if (mode == MAN) conf_man(&out);
	fputs(buf_str(&out), stdout);
	if (mode == DUMP_JSON) {
		r = dump_json(file, &e);
	} else if (mode == CHECK || mode == EFFECTIVE) {
		r = conf_args_parse(n, rest, &args, &e);
		if (r >= 0 && file) {
			free(args.config_path);
			args.config_path = xstrdup(file);
		}
		if (r >= 0) r = check(&args, mode == EFFECTIVE, &e);
		conf_args_fini(&args);
	}
	if (r < 0) fprintf(stderr, "error: %s\n", e.msg);
	err_fini(&e);
	return r != 0;
}
