"""`prsmctl`: one file per noun, each loaded only when it is used. Talks only through prsm_sdk."""
