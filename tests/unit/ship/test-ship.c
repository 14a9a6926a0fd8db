/* Image documents and archives against those of a real BuildKit v0.32.2: the digests here were taken from its exports
 * (buildctl build --output type=oci|docker,compression=uncompressed) of the images that are put together below. */
#include "ship/oci_tar.h"
#include "ship/rawjson.h"
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

static char dir[64];
static struct blob_store *store;
static const struct timespec epoch = {1700000000, 0};
static struct spec_platform amd64;

static int setup(void **st)
{
	snprintf(dir, sizeof dir, "/tmp/test-ship.XXXXXX");
	spec_platform_init(&amd64, "linux", "amd64", NULL, NULL);
	return mkdtemp(dir) ? blob_store_open(dir, &store, NULL) : -1;
}

static int teardown(void **st)
{
	blob_store_close(store);
	spec_platform_fini(&amd64);
	return path_remove_all(AT_FDCWD, dir, NULL);
}

/* ---- helpers ---- */
static struct ship_layer put_layer(const char *dirname, const char *file, const char *data, int64_t dir_mtime, int64_t mtime)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	_cleanup_tar_writer_ struct tar_writer *w = tar_writer_new(tar_out_buf(&b));
	struct tar_entry d = {.type = TAR_DIR, .name = dirname, .mode = 0755, .mtime = {dir_mtime, 0}};
	struct tar_entry f = {.type = TAR_REG, .name = file, .mode = 0644, .mtime = {mtime, 0}, .size = (int64_t)strlen(data)};
	if (dirname) assert_int_equal(tar_write_header(w, &d, NULL), 0);
	assert_int_equal(tar_write_header(w, &f, NULL), 0);
	assert_int_equal(tar_write_data(w, data, strlen(data), NULL), 0);
	assert_int_equal(tar_writer_finish(w, NULL), 0);
	struct ship_layer l = {.media_type = SPEC_DOCKER_LAYER, .size = (int64_t)b.n};
	assert_int_equal(blob_put(store, b.p, b.n, l.digest, NULL), 0);
	memcpy(l.diff_id, l.digest, sizeof l.diff_id);
	return l;
}

/* Config and manifest into the store. */
static struct ship_desc commit(const struct ship_image *img)
{
	_cleanup_buf_ struct buf config = BUF_INIT, manifest = BUF_INIT;
	char config_digest[DIGEST_STR];
	struct err e = ERR_INIT;
	if (ship_image_config(img, &config, &e) < 0) fail_msg("%s", e.msg);
	assert_int_equal(blob_put(store, config.p, config.n, config_digest, NULL), 0);
	assert_int_equal(ship_image_manifest(img, config_digest, (int64_t)config.n, &manifest, NULL), 0);
	struct ship_desc d = {.media_type = spec_media_manifest(!img->docker_types), .size = (int64_t)manifest.n};
	assert_int_equal(blob_put(store, manifest.p, manifest.n, d.digest, NULL), 0);
	return d;
}

static void archive_is(const struct ship_desc *root, const char *name, bool docker, const char *want)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct err e = ERR_INIT;
	char *names[] = {(char *)name};
	char digest[DIGEST_STR];
	struct ship_archive a = {.store = store, .root = root, .names = names, .n_names = name != NULL, .docker = docker};
	if (ship_archive_write(&a, tar_out_buf(&b), &e) < 0) fail_msg("%s", e.msg);
	digest_str_of(b.p, b.n, digest);
	assert_string_equal(digest, want);
}

static const struct ship_kv created[] = {{"org.opencontainers.image.created", "2023-11-14T22:13:20Z"}};

/* FROM scratch; LABEL a="<b>&c"; COPY f /d/f; COPY g /d/g; ENV X=1 */
static const char dockerfile_config[] =
	"{ \"os\": \"linux\", "
	"\"architecture\":\"amd64\",\"rootfs\":{},\"config\":{\"Env\":[\"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/"
	"usr/bin:/sbin:/bin\",\"X=1\"],\"WorkingDir\":\"/\", \"Labels\":{\"a\":\"<b>&c\"}},"
	"\"created\":\"2023-11-14T22:13:20Z\",\"history\":["
	"{\"created\":\"2023-11-14T22:13:20.000Z\",\"created_by\":\"LABEL "
	"a=<b>&c\",\"comment\":\"buildkit.dockerfile.v0\",\"empty_layer\":true},"
	"{\"created\":\"2023-11-15T22:13:20Z\",\"created_by\":\"COPY f /d/f # "
	"buildkit\",\"comment\":\"buildkit.dockerfile.v0\"},"
	"{\"created_by\":\"COPY g /d/g # buildkit\",\"comment\":\"buildkit.dockerfile.v0\"},"
	"{\"created_by\":\"ENV X=1\",\"comment\":\"buildkit.dockerfile.v0\",\"empty_layer\":true}]}";

static struct ship_image dockerfile_image(struct ship_layer layers[static 2])
{
	layers[0] = put_layer("d/", "d/f", "f\n", 1795311545, 1600000000);
	layers[1] = put_layer("d/", "d/g", "g\n", 1795311545, 1600000000);
	assert_string_equal(layers[0].digest, "sha256:2c6d5bb1dc780f9490af2b6c2edd292232bdd3194cfb2429fc427498d67e58a8");
	assert_string_equal(layers[1].digest, "sha256:d872807be90ae872e116450e3a73a89a529cdd6f60f364eb09550bf3c1dd8be0");
	return (struct ship_image){.layers = layers,
				   .n_layers = 2,
				   .config = dockerfile_config,
				   .n_config = strlen(dockerfile_config),
				   .epoch = &epoch};
}

/* ---- tests ---- */
static void plain_image(void **st)
{
	struct ship_layer layers[2];
	struct ship_image img = dockerfile_image(layers);
	struct ship_desc d = commit(&img);
	assert_string_equal(d.digest, "sha256:6455e654db88b72af0ebe6ebf8185811db925afc9e69e7bf6764dc7c25a6e8ca");
	d.annotations = created;
	d.n_annotations = 1;
	d.platform = &amd64;
	archive_is(&d, "example.com/ns/app:v1", false,
		   "sha256:8ac4eca5019260f665f49544b6a02429b011052d7dcab1b8f8d72bd8110b9474");
	archive_is(&d, "docker.io/library/app:v1", true,
		   "sha256:eef881247547f80e74c528d8e04072d1752e2b7a168fcfcda747de9cd3ad38e2");
}

static void default_config(void **st)
{
	struct ship_layer l = put_layer(NULL, "f", "hi", 0, 1795311877);
	struct ship_image img = {.layers = &l, .n_layers = 1, .platform = &amd64, .epoch = &epoch};
	l.created_by = "mkfile /f";
	l.has_created = true;
	l.created = (struct timespec){1795311877, 427052797};
	struct ship_desc d = commit(&img);
	assert_string_equal(d.digest, "sha256:3905e59651c4070e1ad9c54ff1b15f1fec6bd033aaa85f2c02c708c123003d2b");
	d.annotations = created;
	d.n_annotations = 1;
	d.platform = &amd64;
	archive_is(&d, NULL, false, "sha256:f1d3ed29c97d80b06fcce938ad7b2a3dfa6749379874bd2e94e0856ed6fc5555");
	img.epoch = NULL;
	d = commit(&img);
	assert_string_equal(d.digest, "sha256:c7943b28e1087028d83563ac8d201199c605b7ab8fe8882dca4781e46279a529");
}

static void no_layers(void **st)
{
	static const char config[] =
		"{\"architecture\":\"amd64\",\"config\":{\"Env\":[\"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/"
		"sbin:/bin\",\"x=y\"],\"WorkingDir\":\"/\"},\"history\":[{\"created_by\":\"ENV "
		"x=y\",\"comment\":\"buildkit.dockerfile.v0\","
		"\"empty_layer\":true}],\"os\":\"linux\"}";
	static const struct ship_kv kv[] = {{"org.opencontainers.image.created", "2026-11-22T01:44:37Z"}};
	struct ship_image img = {.no_ref = true, .config = config, .n_config = strlen(config), .docker_types = true};
	struct ship_desc d = commit(&img);
	d.annotations = kv;
	d.n_annotations = 1;
	d.platform = &amd64;
	archive_is(&d, "docker.io/library/foo:latest", true,
		   "sha256:a663fa3602b9afa4978ff1ef0c6473b287a309557ac95a5d28fbb6d5ed111293");
}

/* Provenance as an artifact beside the image, annotations on all three levels. */
static const char predicate[] = "{\"buildDefinition\":{\"buildType\":\"https://github.com/moby/buildkit/blob/master/docs/"
				"attestations/slsa-definitions.md\","
				"\"externalParameters\":{\"configSource\":{},\"request\":{\"frontend\":\"dockerfile.v0\","
				"\"locals\":[{\"name\":\"context\"},{\"name\":\"dockerfile\"}],"
				"\"root\":{\"configSource\":{},\"request\":{}},\"compatibilityVersion\":30}},"
				"\"internalParameters\":{\"builderPlatform\":\"linux/amd64\","
				"\"dockerfileVersion\":\"1.26.0\"}},\"runDetails\":{\"builder\":{\"id\":\"\"},\"metadata\":{"
				"\"invocationId\":\"7yssfmjy8kb44dahjsk02t7qe\","
				"\"startedOn\":\"2026-11-22T01:44:31.525718897Z\",\"finishedOn\":\"2026-11-22T01:44:31."
				"605637507Z\",\"buildkit_metadata\":{},"
				"\"buildkit_completeness\":{\"request\":false,\"resolvedDependencies\":false}}}}";

static void attestations(void **st)
{
	static const struct ship_kv on_manifest[] = {{"org.x", "y<z"}}, on_index[] = {{"foo", "bar"}}, on_desc[] = {{"q", "r"}};
	struct ship_layer layers[2];
	struct ship_image img = dockerfile_image(layers);
	img.annotations = on_manifest;
	img.n_annotations = 1;
	struct ship_desc image = commit(&img);
	_cleanup_buf_ struct buf statement = BUF_INIT, config = BUF_INIT, manifest = BUF_INIT, index = BUF_INIT,
				 old_config = BUF_INIT, old = BUF_INIT;
	struct ship_subject subject = {.name = "pkg:docker/example.com/ns/app@v1?platform=linux%2Famd64"};
	memcpy(subject.digest, image.digest, sizeof subject.digest);
	assert_int_equal(ship_intoto_statement("https://slsa.dev/provenance/v1", &subject, 1, predicate, strlen(predicate),
					       false, &statement, NULL),
			 0);
	struct ship_statement s = {.size = (int64_t)statement.n, .predicate_type = "https://slsa.dev/provenance/v1"};
	assert_int_equal(blob_put(store, statement.p, statement.n, s.digest, NULL), 0);
	assert_string_equal(s.digest, "sha256:4022f524305ec92345317edb3d3d946cae41cbe96ee8f2ec7b3a84ec33d2a887");
	assert_int_equal(ship_attestation(&image, &s, 1, true, false, &config, &manifest, NULL), 0);
	assert_int_equal(blob_put(store, config.p, config.n, NULL, NULL), 0);
	struct ship_desc all[2] = {
		image, {.media_type = SPEC_OCI_MANIFEST, .size = (int64_t)manifest.n, .platform = ship_unknown_platform()}};
	assert_int_equal(blob_put(store, manifest.p, manifest.n, all[1].digest, NULL), 0);
	struct ship_kv link[2];
	ship_attestation_annotations(&image, link);
	all[0].platform = &amd64;
	all[0].annotations = on_desc;
	all[0].n_annotations = 1;
	all[1].annotations = link;
	all[1].n_annotations = 2;
	assert_int_equal(ship_index(all, 2, on_index, 1, false, &index, NULL), 0);
	struct ship_desc root = {
		.media_type = SPEC_OCI_INDEX, .size = (int64_t)index.n, .annotations = created, .n_annotations = 1};
	assert_int_equal(blob_put(store, index.p, index.n, root.digest, NULL), 0);
	assert_string_equal(root.digest, "sha256:dd3ed4a75651336a768ab15ee7d3477eab95dbbca34f8921afff4f14637e8fc8");
	archive_is(&root, "example.com/ns/app:v1", false,
		   "sha256:8519794392bca9a985feac54b38e1c51c460208e298200ab7c92fe781200927b");
	/* oci-artifact=false */
	struct ship_statement t = {.digest = "sha256:51e20a89ff259e265082c1d754a42940e1a3a5e6f9f7ea17209527ef12a2bf32",
				   .size = 794,
				   .predicate_type = "https://slsa.dev/provenance/v1"};
	char digest[DIGEST_STR];
	assert_int_equal(ship_attestation(&image, &t, 1, false, false, &old_config, &old, NULL), 0);
	digest_str_of(old.p, old.n, digest);
	assert_string_equal(digest, "sha256:5bdae54ce57e3247099c48a87b6cdb4ec66b4d87ad701da06c94d986fc59dfa2");
	/* children come first in the walk */
	_cleanup_ship_blobs_ struct ship_blobs blobs = {0};
	assert_int_equal(ship_blobs_walk(store, &root, &blobs, NULL), 0);
	assert_int_equal(blobs.digests.n, 8);
	assert_string_equal(blobs.digests.v[7], root.digest);
	assert_string_equal(blobs.media_types.v[0], SPEC_OCI_CONFIG);
}

static void indented_statement(void **st)
{
	static const char doc[] = "{\"a\": [1,2, {}], \"s\":\"x, {y\\\"\"}";
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct ship_subject s = {.name = "a<b"};
	digest_str_of("x", 1, s.digest);
	assert_int_equal(ship_intoto_statement("t", &s, 1, doc, strlen(doc), true, &b, NULL), 0);
	assert_string_equal(
		buf_str(&b),
		"{\n  \"_type\": \"https://in-toto.io/Statement/v1\",\n  \"predicateType\": \"t\",\n  \"subject\": [\n    {\n"
		"      \"name\": \"a\\u003cb\",\n      \"digest\": {\n        \"sha256\": "
		"\"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881\"\n      }\n    }\n  ],\n"
		"  \"predicate\": {\n    \"a\": [\n      1,\n      2,\n      {}\n    ],\n    \"s\": \"x, {y\\\"\"\n  }\n}");
}

/* ---- history ---- */
static char *history_of(struct ship_image *img)
{
	_cleanup_buf_ struct buf out = BUF_INIT;
	struct err e = ERR_INIT;
	if (ship_image_config(img, &out, &e) < 0) fail_msg("%s", e.msg);
	_cleanup_ship_raw_ struct ship_raw doc = {0};
	bool null;
	assert_int_equal(ship_raw_parse(buf_str(&out), out.n, &doc, &null, NULL), 0);
	return xasprintf("%s %s", buf_str(ship_raw_get(&doc, "created")), buf_str(ship_raw_get(&doc, "history")));
}

#define CONFIG(h) "{\"os\":\"linux\",\"architecture\":\"amd64\",\"history\":" h "}"

static void histories(void **st)
{
	struct ship_layer l[2] = {
		{.media_type = SPEC_OCI_LAYER, .has_created = true, .created = {100, 0}, .created_by = "one"},
		{.media_type = SPEC_OCI_LAYER, .has_created = true, .created = {200, 500000000}},
	};
	const struct timespec fifty = {50, 0};
	const struct {
		const char *config, *base;
		const struct timespec *epoch;
		size_t layers;
		bool no_ref;
		const char *want;
	} cases[] = {
		/* missing entries come from the topmost layers */
		{CONFIG("[{\"created_by\":\"x\"}]"), NULL, NULL, 2, false,
		 "\"1970-01-01T00:03:20.5Z\" "
		 "[{\"created\":\"1970-01-01T00:01:40Z\",\"created_by\":\"x\"},{\"created\":\"1970-01-01T00:03:20.5Z\","
		 "\"created_by\":\"created by buildkit\",\"comment\":\"buildkit.exporter.image.v0\"}]"},
		/* more entries than layers: the later are empty */
		{CONFIG("[{\"created_by\":\"x\"},{\"created_by\":\"y\"}]"), NULL, NULL, 1, false,
		 "\"1970-01-01T00:01:40Z\" "
		 "[{\"created\":\"1970-01-01T00:01:40Z\",\"created_by\":\"x\"},{\"created\":\"1970-01-01T00:01:40Z\","
		 "\"created_by\":\"y\",\"empty_layer\":true}]"},
		/* an empty entry between a base and a new layer takes the new layer's time */
		{CONFIG("[{\"created\":\"1960-05-01T10:00:00.120+02:00\"},{\"empty_layer\":true},{\"author\":\"me\"}]"), NULL,
		 NULL, 2, false,
		 "\"1970-01-01T00:03:20.5Z\" "
		 "[{\"created\":\"1960-05-01T10:00:00.12+02:00\"},{\"created\":\"1970-01-01T00:03:20.5Z\",\"empty_layer\":true}"
		 ","
		 "{\"created\":\"1970-01-01T00:03:20.5Z\",\"author\":\"me\"}]"},
		/* the epoch spares the base image's own entries */
		{CONFIG("[{\"created\":\"1970-01-01T00:01:00Z\",\"created_by\":\"b\"},{\"created_by\":\"n\"}]"),
		 CONFIG("[{\"created\":\"1970-01-01T00:01:00Z\",\"created_by\":\"b\"}]"), &fifty, 2, false,
		 "\"1970-01-01T00:00:50Z\" "
		 "[{\"created\":\"1970-01-01T00:01:00Z\",\"created_by\":\"b\"},{\"created\":\"1970-01-01T00:00:50Z\","
		 "\"created_by\":\"n\"}]"},
		{CONFIG("[]"), NULL, NULL, 0, true, "null []"},
		{CONFIG("null"), NULL, &fifty, 0, true, "null null"},
	};
	for (size_t i = 0; i < array_len(cases); i++) {
		struct ship_image img = {.layers = l,
					 .n_layers = cases[i].layers,
					 .config = cases[i].config,
					 .n_config = strlen(cases[i].config),
					 .base_config = cases[i].base,
					 .n_base_config = cases[i].base ? strlen(cases[i].base) : 0,
					 .epoch = cases[i].epoch,
					 .no_ref = cases[i].no_ref};
		_cleanup_free_ char *got = history_of(&img);
		assert_string_equal(got, cases[i].want);
	}
}

static void created_clamped(void **st)
{
	const struct timespec fifty = {50, 0};
	static const char config[] = "{\"os\":\"linux\",\"architecture\":\"amd64\",\"created\":\"2000-01-01T00:00:00Z\",\"z\":{"
				     "\"k\" : [1 , \"<\"]},\"moby.x\":1.50}";
	struct ship_image img = {.config = config,
				 .n_config = strlen(config),
				 .epoch = &fifty,
				 .no_ref = true,
				 .inline_cache = "[]",
				 .n_inline_cache = 2};
	_cleanup_buf_ struct buf out = BUF_INIT;
	assert_int_equal(ship_image_config(&img, &out, NULL), 0);
	assert_string_equal(buf_str(&out), "{\"architecture\":\"amd64\",\"created\":\"1970-01-01T00:00:50Z\",\"history\":null,"
					   "\"moby.buildkit.cache.v0\":\"W10=\","
					   "\"moby.x\":1.50,\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":null}"
					   ",\"z\":{\"k\":[1,\"\\u003c\"]}}");
}

static void bad_configs(void **st)
{
	const struct {
		const char *config, *text;
	} cases[] = {
		{"{\"os\":\"linux\"}", "os and architecture must be specified together"},
		{"{\"architecture\":\"x\"}", "os and architecture must be specified together"},
		{"{}", "missing os"},
		{"null", "invalid null image config"},
		{"[1]", "not a JSON object"},
		{"{\"os\":\"linux\",", "invalid image config for export"},
		{CONFIG("{}"), "failed to unmarshal history"},
		{CONFIG("[{\"created\":\"yesterday\"}]"), "failed to unmarshal history"},
	};
	for (size_t i = 0; i < array_len(cases); i++) {
		struct ship_image img = {.config = cases[i].config, .n_config = strlen(cases[i].config), .no_ref = true};
		_cleanup_buf_ struct buf out = BUF_INIT;
		struct err e = ERR_INIT;
		assert_int_equal(ship_image_config(&img, &out, &e), -1);
		if (!strstr(e.msg, cases[i].text)) fail_msg("%s", e.msg);
		err_fini(&e);
	}
}

static void layer_types(void **st)
{
	const struct ship_kv kv[] = {{"containerd.io/uncompressed", "x"},
				     {"buildkit/rewritten-timestamp", "1"},
				     {"containerd.io/distribution.source.a", "b"}};
	struct ship_layer l = {.media_type = SPEC_DOCKER_FOREIGN_GZIP, .annotations = kv, .n_annotations = 3};
	struct ship_image img = {0};
	struct ship_desc d = ship_layer_desc(&img, &l);
	assert_string_equal(d.media_type, SPEC_OCI_LAYER_GZIP);
	assert_int_equal(d.n_annotations, 1);
	free((void *)d.annotations);
	img.keep_nondist = true;
	d = ship_layer_desc(&img, &l);
	assert_string_equal(d.media_type, SPEC_OCI_NONDIST_GZIP);
	free((void *)d.annotations);
	img.docker_types = true;
	d = ship_layer_desc(&img, &l);
	assert_string_equal(d.media_type, SPEC_DOCKER_FOREIGN_GZIP);
	assert_int_equal(d.n_annotations, 0);
}

/* A store whose bytes are not what they were, or not there. */
static void damaged_store(void **st)
{
	struct ship_layer l = put_layer(NULL, "f", "soon damaged", 0, 5);
	struct ship_image img = {.layers = &l, .n_layers = 1, .platform = &amd64, .epoch = &epoch};
	struct ship_desc d = commit(&img);
	_cleanup_free_ char *path = blob_path(store, l.digest);
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct err e = ERR_INIT;
	struct ship_archive a = {.store = store, .root = &d};
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0) { /* not root: the blob is read-only */
		chmod(path, 0600);
		fd = open(path, O_WRONLY | O_CLOEXEC);
	}
	assert_int_equal(pwrite(fd, "X", 1, 600), 1);
	close(fd);
	assert_int_equal(ship_archive_write(&a, tar_out_buf(&b), &e), -1);
	assert_int_equal(e.code, CODE_DATA_LOSS);
	blob_remove(store, l.digest, NULL);
	assert_int_equal(ship_archive_write(&a, tar_out_buf(&b), &e), -1);
	assert_int_equal(e.code, CODE_NOT_FOUND);
	err_fini(&e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain_image),     cmocka_unit_test(default_config),     cmocka_unit_test(no_layers),
		cmocka_unit_test(attestations),    cmocka_unit_test(indented_statement), cmocka_unit_test(histories),
		cmocka_unit_test(created_clamped), cmocka_unit_test(bad_configs),        cmocka_unit_test(layer_types),
		cmocka_unit_test(damaged_store),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
