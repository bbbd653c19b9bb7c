package pginspect

import "context"

// Globbed is what becomes of a pattern, and whether it matches name.
func Globbed(pattern, name string) (likePattern string, matches bool) {
	return like(pattern), glob(pattern, name)
}

// Duration reads a setting.
var Duration = duration

// Settled is how records become held or orphaned, with a read of the test's own.
func Settled(ctx context.Context, on DB, read func() ([]Record, error)) ([]Record, error) {
	t, err := openAudit(ctx, on)
	if err != nil {
		return nil, err
	}
	return t.settled(ctx, read)
}
