package pginspect

// Globbed is what becomes of a pattern, and whether it matches name.
func Globbed(pattern, name string) (likePattern string, matches bool) {
	return like(pattern), glob(pattern, name)
}

// Duration reads a setting.
var Duration = duration
